"""Probation: does the new slot stay within the limits? Pure; the limits are settings, the numbers go into the report."""

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

KEPT_TIMES = 200
"""Latest frame times that medians are made of."""
_LEAST_TIMES = 5
"""Segmented frames before time and memory are judged: the first ones after a start are slow on every machine."""
_AT_ONCE = 2.0
"""Multiple of the memory limit that is too much at any time, also before ``_LEAST_TIMES`` frames."""


@dataclass(frozen=True)
class Verdict:
    """Result of the judgement.

    Attributes:
        event: None while probation continues.
        reason: for the report.
        numbers: plain JSON data: counts and limits.
    """

    event: Event | None
    reason: str
    numbers: dict[str, Any]


def add(tally: Tally, snapshot: WorkSnapshot, slot: str) -> Tally:
    """Add the frames and failures of one poll to the counts of a slot.

    Args:
        tally: the counts before.
        snapshot: of the latest poll.
        slot: SHA-256 of the slot.

    Returns:
        The counts after.
    """
    frames = [f for f in snapshot.frames if f.slot == slot]
    troubles = [t for t in snapshot.troubles if t.slot == slot]
    segmented = [f for f in frames if f.result == "segmented"]
    bad = [f.reason for f in frames if f.result == "failed"] + [t.text for t in troubles]
    memory = max([tally.memory_mb, snapshot.memory_mb.get(slot, 0.0), *(f.memory_mb for f in frames)])
    return tally.model_copy(
        update={
            "segmented": tally.segmented + len(segmented),
            "failed": tally.failed + len(frames) - len(segmented),
            "crashes": tally.crashes + sum(t.kind == "crash" for t in troubles),
            "hangs": tally.hangs + sum(t.kind == "hang" for t in troubles),
            "times_ms": (*tally.times_ms, *(f.milliseconds for f in segmented))[-KEPT_TIMES:],
            "memory_mb": memory,
            "last_trouble": words(bad[-1] if bad else tally.last_trouble),
        }
    )


def median_ms(times: Iterable[float]) -> float | None:
    """Median of frame times, ms; None when there are none."""
    values = list(times)
    return statistics.median(values) if values else None


def judge(tally: Tally, limits: AgentSection, since: datetime, now: datetime) -> Verdict:
    """Decide whether a slot passes, fails or continues its probation.

    Args:
        tally: counts of the new slot.
        limits: settings of this update; a value equal to its limit passes.
        since: time of the activation.
        now: time.

    Returns:
        ``good``, ``bad``, or no event yet.
    """
    median = median_ms(tally.times_ms)
    waited = (now - since).total_seconds()
    numbers: dict[str, Any] = {
        "frames": tally.segmented,
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
    if tally.segmented >= limits.probation_frames:
        return Verdict("good", f"{tally.segmented} frames were drawn within the limits", numbers)
    if waited >= limits.probation_s:
        text = f"{tally.segmented} of {limits.probation_frames} frames came in {waited:.0f} s, without a bad sign"
        return Verdict("good", text, numbers)
    return Verdict(None, f"{tally.segmented} of {limits.probation_frames} frames were segmented", numbers)


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
