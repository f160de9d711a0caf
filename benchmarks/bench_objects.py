"""Cutting and measuring objects: cellfleet's kernels against scikit-image, both in one run; prints times and ratios.

Run with: python benchmarks/bench_objects.py [--huge]

The other side is what one would write with scikit-image: smoothing, labelled peaks of the distance map, watershed
within the foreground, small objects removed, holes filled, regionprops. ``--huge`` cuts and measures a frame of
20,000 x 20,000 pixels and prints the greatest memory of the process; it needs about 6 GB and a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle.spec import ObjectParams
from cellfleet.runtime.objects import measure_objects, objects_from_maps

PARAMS = ObjectParams(foreground_threshold=0.5, seed_threshold=0.5, smooth_passes=2, min_seed_area_px=3, min_area_px=30)
PITCH_PX = 51
"""Cells lie on a jittered grid of this pitch: 400 on 1024 x 1024."""
U16 = NDArray[np.uint16]


def cell_maps(side: int, seed: int = 0) -> tuple[U16, U16]:
    """Maps as networks draw them: foreground and distance of ellipses, many of which touch; uint16 [side,side].

    Made tile by tile so that a huge one needs no more than its own memory.
    """
    random = np.random.default_rng(seed)
    foreground, distance = np.zeros((side, side), np.uint16), np.zeros((side, side), np.uint16)
    reach = 34
    for cy in range(PITCH_PX // 2, side, PITCH_PX):
        for cx in range(PITCH_PX // 2, side, PITCH_PX):
            y, x = cy + random.integers(-9, 10), cx + random.integers(-9, 10)
            rows = slice(max(0, y - reach), min(side, y + reach))
            columns = slice(max(0, x - reach), min(side, x + reach))
            dy, dx = np.mgrid[rows, columns].astype(np.float32)
            angle, a, b = random.uniform(0, np.pi), random.uniform(20, 30), random.uniform(13, 22)
            u = ((dx - x) * np.cos(angle) + (dy - y) * np.sin(angle)) / a
            v = ((dy - y) * np.cos(angle) - (dx - x) * np.sin(angle)) / b
            depth = 1 - np.hypot(u, v)
            noise = random.normal(0, 0.02, depth.shape)
            inside = np.clip(1 / (1 + np.exp(-12 * depth)) + noise, 0, 1)
            peak = np.clip(depth + noise, 0, 1)
            for target, values in ((foreground, inside), (distance, peak)):
                part = target[rows, columns]
                np.maximum(part, (values * 65535).astype(np.uint16), out=part)
    return foreground, distance


def best_ms(work: Callable[[], object], repeats: int) -> float:
    """Least time of several runs, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def cut_with_skimage(foreground: U16, distance: U16) -> NDArray[Any]:
    """The same steps with scikit-image."""
    from scipy import ndimage
    from skimage.measure import label
    from skimage.morphology import remove_small_holes, remove_small_objects
    from skimage.segmentation import watershed

    inside = foreground >= PARAMS.foreground_threshold * 65535
    smooth = ndimage.gaussian_filter(distance.astype(np.float32), PARAMS.smooth_passes**0.5 / 2**0.5)
    seeds = label(inside & (smooth >= PARAMS.seed_threshold * 65535), connectivity=2)
    seeds = remove_small_objects(seeds, max_size=PARAMS.min_seed_area_px - 1)
    inside = remove_small_holes(inside, max_size=64)
    labels = watershed(-smooth, seeds, mask=inside)
    return remove_small_objects(labels, max_size=PARAMS.min_area_px - 1)  # type: ignore[no-any-return]


def measure_with_skimage(labels: NDArray[Any], intensity: U16) -> dict[str, Any]:
    """The columns that cellfleet measures."""
    from skimage.measure import regionprops_table

    columns = ("label", "area", "centroid", "bbox", "eccentricity", "intensity_mean")
    return regionprops_table(labels, intensity, properties=columns)  # type: ignore[no-any-return]


def compare(side: int, repeats: int) -> None:
    """Time both on one frame and print."""
    foreground, distance = cell_maps(side)
    labels = objects_from_maps(foreground, distance.copy(), PARAMS)
    theirs = cut_with_skimage(foreground, distance)
    print(f"{side} x {side}: {labels.max()} objects, scikit-image finds {len(np.unique(theirs)) - 1}")
    scratch = np.empty_like(distance)

    def cut() -> None:
        scratch[:] = distance  # the kernel overwrites it
        objects_from_maps(foreground, scratch, PARAMS)

    rows = (
        ("cut objects", cut, lambda: cut_with_skimage(foreground, distance)),
        (
            "measure",
            lambda: measure_objects(labels, foreground, foreground),
            lambda: measure_with_skimage(labels, foreground),
        ),
    )
    for name, ours, other in rows:
        a, b = best_ms(ours, repeats), best_ms(other, max(1, repeats // 2))
        print(f"  {name:12} cellfleet {a:9.1f} ms   scikit-image {b:9.1f} ms   ratio {b / a:.1f}")


def huge(side: int = 20_000) -> None:
    """Cut and measure one huge frame; print times and the greatest resident memory."""
    import resource

    foreground, distance = cell_maps(side)
    before = _peak_gb(resource)
    start = time.perf_counter()
    labels = objects_from_maps(foreground, distance, PARAMS)
    middle = time.perf_counter()
    measure_objects(labels, foreground, foreground)
    end = time.perf_counter()
    print(f"{side} x {side}: {labels.max()} objects; cut {middle - start:.1f} s, measured {end - middle:.1f} s")
    print(f"  greatest memory {_peak_gb(resource):.2f} GB, of which {before:.2f} GB before the kernels began")


def _peak_gb(resource: Any) -> float:
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 / 1e9


def main() -> None:
    """Frames as a camera gives them, and on request a huge one."""
    parser = argparse.ArgumentParser(description="Time cutting and measuring objects.")
    parser.add_argument("--huge", action="store_true", help="one frame of 20,000 x 20,000 pixels instead")
    if parser.parse_args().huge:
        huge()
        return
    compare(1024, repeats=7)
    compare(4096, repeats=2)


if __name__ == "__main__":
    main()
