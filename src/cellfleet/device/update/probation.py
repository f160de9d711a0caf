"""Probation: is the new slot worse than it may be? Pure; the limits are settings, the numbers go into the report."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cellfleet.config.fleet import AgentSection
from cellfleet.device.interfaces import WorkSnapshot
from cellfleet.device.update.journal import Tally
from cellfleet.device.update.state_machine import Event
from cellfleet.wire.plain import words

_KEPT_TIMES = 200
_LEAST_TIMES = 5
"""Frames before time and memory are judged: the first ones after a start are slow everywhere."""
_AT_ONCE = 2.0
"""So many times the memory that is allowed is too much at any moment: the host needs it."""


@dataclass(frozen=True)
class Verdict:
    """``event`` is None while it is not decided."""

    event: Event | None
    reason: str
    numbers: dict[str, Any]


def add(tally: Tally, seen: WorkSnapshot, slot: str) -> Tally:
    """Count what was seen of a slot since the poll before."""
    frames = [f for f in seen.frames if f.slot == slot]
    troubles = [t for t in seen.troubles if t.slot == slot]
    drawn = [f for f in frames if f.result == "segmented"]
    bad = [f.reason for f in frames if f.result == "failed"] + [t.text for t in troubles]
    memory = max([tally.memory_mb, seen.memory_mb.get(slot, 0.0), *(f.memory_mb for f in frames)])
    return tally.model_copy(
        update={
            "drawn": tally.drawn + len(drawn),
            "failed": tally.failed + len(frames) - len(drawn),
            "crashes": tally.crashes + sum(t.kind == "crash" for t in troubles),
            "hangs": tally.hangs + sum(t.kind == "hang" for t in troubles),
            "times_ms": (*tally.times_ms, *(f.milliseconds for f in drawn))[-_KEPT_TIMES:],
            "memory_mb": memory,
            "last_trouble": words(bad[-1] if bad else tally.last_trouble),
        }
    )


def median_ms(times: Iterable[float]) -> float | None:
    """Median of frame times; None when there are none."""
    values = list(times)
    return statistics.median(values) if values else None


def judge(tally: Tally, limits: AgentSection, since: datetime, now: datetime) -> Verdict:
    """Decide on what was counted.

    Args:
        tally: of the new slot.
        limits: settings of this update.
        since: when it was activated.
    """
    median = median_ms(tally.times_ms)
    waited = (now - since).total_seconds()
    numbers: dict[str, Any] = {
        "frames": tally.drawn,
        "failed": tally.failed,
        "crashes": tally.crashes,
        "hangs": tally.hangs,
        "median_ms": median,
        "before_ms": tally.base_ms,
        "memory_mb": tally.memory_mb,
        "max_ms": limits.probation_max_ms,
        "max_slowdown": limits.probation_max_slowdown,
        "max_memory_mb": limits.probation_max_memory_mb,
        "max_errors": limits.probation_max_errors,
    }
    if reasons := _reasons(tally, limits, median):
        return Verdict("bad", "; ".join(reasons), numbers)
    if tally.drawn >= limits.probation_frames:
        return Verdict("good", f"{tally.drawn} frames were drawn within the limits", numbers)
    if waited >= limits.probation_s:
        text = f"{tally.drawn} of {limits.probation_frames} frames came in {waited:.0f} s, without a bad sign"
        return Verdict("good", text, numbers)
    return Verdict(None, f"{tally.drawn} of {limits.probation_frames} frames were drawn", numbers)


def _reasons(tally: Tally, limits: AgentSection, median: float | None) -> list[str]:
    out = []
    troubles = tally.failed + tally.crashes + tally.hangs
    if troubles > limits.probation_max_errors:
        text = (
            f"{tally.failed} frames failed, the segmenter crashed {tally.crashes} times and hung {tally.hangs} times; "
            f"{limits.probation_max_errors} may"
        )
        out.append(f"{text} ({tally.last_trouble})" if tally.last_trouble else text)
    early = median is None or len(tally.times_ms) < min(_LEAST_TIMES, limits.probation_frames)
    if tally.memory_mb > limits.probation_max_memory_mb * (_AT_ONCE if early else 1.0):
        out.append(f"its segmenter uses {tally.memory_mb:.0f} MB, {limits.probation_max_memory_mb:.0f} MB are allowed")
    if median is None or early:
        return out
    if median > limits.probation_max_ms:
        out.append(f"a frame takes {median:.0f} ms, {limits.probation_max_ms:.0f} ms are allowed")
    if tally.base_ms and median > limits.probation_max_slowdown * tally.base_ms:
        out.append(
            f"a frame takes {median:.0f} ms, it took {tally.base_ms:.0f} ms before; "
            f"{limits.probation_max_slowdown:g} times that is allowed"
        )
    return out
