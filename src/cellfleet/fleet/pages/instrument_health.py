"""How an instrument is, and why: one word and its reasons from what it reported and what the server saw. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cellfleet.wire.reason import Reason, because, read_reason, read_reasons

ORDER = ("unwell", "silent", "warning", "pending", "well", "rejected", "revoked")
"""Conditions, the most urgent first."""
MAX_CLOCK_OFFSET_S = 60.0
_OUTCOMES = {
    "refused": "condition.refused",
    "failed": "condition.failed",
    "rolled-back": "condition.rolled-back",
}


@dataclass(frozen=True)
class Condition:
    """``code`` is one of ORDER."""

    code: str
    reasons: tuple[Reason, ...] = ()

    @property
    def needs_eyes(self) -> bool:
        """An operator should check this instrument."""
        return self.code in ("unwell", "silent", "warning")


def condition(
    state: str,
    reported: Mapping[str, Any],
    alarms: Mapping[str, Reason],
    last_seen_at: datetime | None,
    now: datetime,
    silent_after_s: float,
) -> Condition:
    """Judge an instrument.

    Args:
        state: pending, accepted, rejected, revoked.
        reported: its last ReportedState as plain data; empty when it never reported.
        alarms: name -> reason, found by the server.
        silent_after_s: an accepted instrument without contact for longer is silent.
    """
    if state != "accepted":
        return Condition(state)
    bad = [*alarms.values()]
    silence = _silence(last_seen_at, now, silent_after_s)
    health = reported.get("health") or {}
    bad += read_reasons([str(p) for p in health.get("problems") or ()], health.get("problems_data") or ())
    if health.get("camera") == "failing":
        bad.append(because("condition.camera-fails"))
    if health.get("segmenter") == "failing":
        bad.append(because("condition.segmenter-fails"))
    if bad:
        return Condition("unwell", (*bad, *silence))
    if silence:
        return Condition("silent", silence)
    odd = _odd(reported, health)
    return Condition("warning", odd) if odd else Condition("well")


def _silence(last_seen_at: datetime | None, now: datetime, silent_after_s: float) -> tuple[Reason, ...]:
    if last_seen_at is None:
        return (because("condition.never-reported"),)
    if (now - last_seen_at).total_seconds() <= silent_after_s:
        return ()
    return (because("condition.silent", since=f"{last_seen_at:%Y-%m-%d %H:%M}"),)


def _odd(reported: Mapping[str, Any], health: Mapping[str, Any]) -> tuple[Reason, ...]:
    found = []
    update = reported.get("update") or {}
    if update.get("outcome") in _OUTCOMES:
        found.append(because(_OUTCOMES[update["outcome"]]))
        if why := read_reason(str(update.get("reason") or ""), update.get("reason_data")):
            found.append(why)
    if health.get("camera") == "waiting":
        found.append(because("condition.camera-waits"))
    if health.get("camera") == "held":
        found.append(because("condition.camera-held"))
    offset = float(health.get("clock_offset_s") or 0)
    if abs(offset) > MAX_CLOCK_OFFSET_S:
        found.append(because("condition.clock", seconds=abs(offset)))
    if not reported.get("active"):
        found.append(because("condition.no-model"))
    return tuple(found)
