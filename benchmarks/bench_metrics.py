"""Matching one frame: cellfleet.metrics against stardist.matching, in one run; prints the ratio.

Run with: python benchmarks/bench_metrics.py
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np

from cellfleet.metrics import THRESHOLDS, match

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stardist.matching import matching


def best_ms(work: Callable[[], object], repeats: int = 7) -> float:
    """Least time of several runs, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def main() -> None:
    """A 1024 x 1024 frame with 100 cells, and its mask moved by some pixels."""
    y, x = np.mgrid[:1024, :1024]
    cell = (y // 103) * 10 + x // 103 + 1
    truth = np.where(np.hypot(y % 103 - 51, x % 103 - 51) < 40, cell, 0).astype(np.int32)
    moved = np.roll(truth, (9, 7), (0, 1))
    ours = best_ms(lambda: match(truth, moved))
    theirs = best_ms(lambda: matching(truth, moved, thresh=THRESHOLDS))
    print(f"cellfleet.metrics.match    {ours:8.1f} ms  (all {len(THRESHOLDS)} thresholds)")
    print(f"stardist.matching.matching {theirs:8.1f} ms  (all {len(THRESHOLDS)} thresholds)")
    print(f"ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
