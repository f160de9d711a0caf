"""How an instrument is, and why: one word and its reasons from what it reported and what the server saw. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cellfleet.fleet.pages.i18n import Translator
from cellfleet.fleet.pages.words import N_, duration_text, said

ORDER = ("unwell", "silent", "warning", "pending", "well", "rejected", "revoked")
"""Conditions, those that a person must look at first."""
MAX_CLOCK_OFFSET_S = 60.0


@dataclass(frozen=True)
class Reason:
    """A text for the catalog with its values, or (``foreign``) a sentence that a device or the server wrote."""

    text: str
    values: Mapping[str, str] = field(default_factory=dict)
    foreign: bool = False

    def told(self, _: Translator) -> str:
        """The reason in the reader's language."""
        return said(self.text, _) if self.foreign else _(self.text, **self.values)


@dataclass(frozen=True)
class Condition:
    """``word`` is one of ORDER."""

    word: str
    reasons: tuple[Reason, ...] = ()

    @property
    def needs_eyes(self) -> bool:
        """Somebody should look at this instrument."""
        return self.word in ("unwell", "silent", "warning")


def condition(
    state: str,
    reported: Mapping[str, Any],
    alarms: Mapping[str, Any],
    last_seen_at: datetime | None,
    now: datetime,
    silent_after_s: float,
) -> Condition:
    """Judge an instrument.

    Args:
        state: pending, accepted, rejected, revoked.
        reported: its last ReportedState as plain data; empty when it never reported.
        alarms: word -> text, found by the server.
        silent_after_s: an accepted instrument that was not heard for so long is silent.
    """
    if state != "accepted":
        return Condition(state)
    bad = [Reason(str(text), foreign=True) for text in alarms.values()]
    silence = _silence(last_seen_at, now, silent_after_s)
    health = reported.get("health") or {}
    bad += [Reason(str(p), foreign=True) for p in health.get("problems") or ()]
    if health.get("camera") == "failing":
        bad.append(Reason(N_("the camera fails")))
    if health.get("segmenter") == "failing":
        bad.append(Reason(N_("the segmenter fails")))
    if bad:
        return Condition("unwell", (*bad, *silence))
    if silence:
        return Condition("silent", silence)
    odd = _odd(reported, health)
    return Condition("warning", odd) if odd else Condition("well")


def _silence(last_seen_at: datetime | None, now: datetime, silent_after_s: float) -> tuple[Reason, ...]:
    if last_seen_at is None:
        return (Reason(N_("it never reported")),)
    if (now - last_seen_at).total_seconds() <= silent_after_s:
        return ()
    return (Reason(N_("not heard since {when}"), {"when": f"{last_seen_at:%Y-%m-%d %H:%M}"}),)


def _odd(reported: Mapping[str, Any], health: Mapping[str, Any]) -> tuple[Reason, ...]:
    found = []
    update = reported.get("update") or {}
    if update.get("outcome") in ("refused", "failed", "rolled-back"):
        text = {
            "refused": N_("refused its last update"),
            "failed": N_("its last update failed"),
            "rolled-back": N_("rolled its last update back"),
        }[update["outcome"]]
        found.append(Reason(text))
        if update.get("reason"):
            found.append(Reason(str(update["reason"]), foreign=True))
    if health.get("camera") == "waiting":
        found.append(Reason(N_("the camera waits")))
    if health.get("camera") == "held":
        found.append(Reason(N_("a person holds the camera")))
    offset = float(health.get("clock_offset_s") or 0)
    if abs(offset) > MAX_CLOCK_OFFSET_S:
        found.append(Reason(N_("its clock is {off} off"), {"off": duration_text(abs(offset), Translator())}))
    if not reported.get("active"):
        found.append(Reason(N_("no model is installed")))
    return tuple(found)
