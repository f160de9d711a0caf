"""Probation: checks whether the new slot stays within the limits. Pure; limits are settings, numbers are reported."""

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
from cellfleet.wire.reason import Reason, because, joined

KEPT_TIMES = 200
"""Number of latest frame times for medians."""
_MIN_TIMES = 5
"""Minimum of segmented frames before time and memory are judged: the first frames after a start are slow."""
_AT_ONCE = 2.0
"""Multiple of the memory limit that always fails, also before ``_MIN_TIMES`` frames."""


@dataclass(frozen=True)
class Verdict:
    """Result of the judgement.

    Attributes:
        event: None while probation continues.
        reason: for the report.
        numbers: plain JSON data: counts and limits.
    """

    event: Event | None
    reason: Reason
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
    failures = [f for f in snapshot.failures if f.slot == slot]
    segmented = [f for f in frames if f.result == "segmented"]
    bad = [f.reason for f in frames if f.result == "failed"] + [f.reason for f in failures]
    memory = max([tally.memory_mb, snapshot.memory_mb.get(slot, 0.0), *(f.memory_mb for f in frames)])
    return tally.model_copy(
        update={
            "segmented": tally.segmented + len(segmented),
            "failed": tally.failed + len(frames) - len(segmented),
            "crashes": tally.crashes + sum(f.kind == "crash" for f in failures),
            "hangs": tally.hangs + sum(f.kind == "hang" for f in failures),
            "times_ms": (*tally.times_ms, *(f.milliseconds for f in segmented))[-KEPT_TIMES:],
            "memory_mb": memory,
            "last_trouble": bad[-1] if bad else tally.last_trouble,
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
    elapsed_s = (now - since).total_seconds()
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
    if bad := joined(_reasons(tally, limits, median)):
        return Verdict("bad", bad, numbers)
    frames, wanted = tally.segmented, limits.probation_frames
    if frames >= wanted:
        return Verdict("good", because("probation.passed", frames=frames), numbers)
    if elapsed_s >= limits.probation_s:
        reason = because("probation.time-over", frames=frames, wanted=wanted, seconds=elapsed_s)
        return Verdict("good", reason, numbers)
    return Verdict(None, because("probation.running", frames=frames, wanted=wanted), numbers)


def _reasons(tally: Tally, limits: AgentSection, median: float | None) -> list[Reason]:
    out = []
    failures = tally.failed + tally.crashes + tally.hangs
    if failures > limits.probation_max_errors:
        out.append(_errors(tally, limits.probation_max_errors))
    early = len(tally.times_ms) < min(_MIN_TIMES, limits.probation_frames)
    if not tally.memory_mb <= limits.probation_max_memory_mb * (_AT_ONCE if early else 1.0):  # NaN does not pass
        limit_mb = limits.probation_max_memory_mb
        out.append(because("probation.memory", memory_mb=tally.memory_mb, limit_mb=limit_mb))
    if early or median is None:
        return out
    if not median <= limits.probation_max_ms:
        out.append(because("probation.time", ms=median, limit_ms=limits.probation_max_ms))
    if tally.base_ms and not median <= limits.probation_max_slowdown * tally.base_ms:
        factor = limits.probation_max_slowdown
        out.append(because("probation.slower", ms=median, before_ms=tally.base_ms, factor=factor))
    return out


def _errors(tally: Tally, limit: int) -> Reason:
    failed, crashes, hangs = tally.failed, tally.crashes, tally.hangs
    if tally.last_trouble is None:
        return because("probation.errors", failed=failed, crashes=crashes, hangs=hangs, limit=limit)
    last = tally.last_trouble
    return because("probation.errors-last", last, failed=failed, crashes=crashes, hangs=hangs, limit=limit)
