"""Words, numbers and times as the pages show them. Pure; texts go through a Translator.

>>> size_text(123456789)
'123 MB'
>>> STATES["rolled-back"].tone
'bad'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Undefined

from cellfleet.fleet.pages.i18n import Translator, catalog
from cellfleet.wire.reason import Reason, read_reason, render


def N_(text: str) -> str:  # noqa: N802
    """Mark a text for the catalog; it is translated where it is shown."""
    return text


@dataclass(frozen=True)
class State:
    """How a state is shown: its words, and a tone (``good``, ``bad``, ``warn``, ``run`` or empty)."""

    text: str
    tone: str = ""


STATES: Mapping[str, State] = {
    # devices
    "pending": State(N_("waiting to be accepted"), "warn"),
    "accepted": State(N_("accepted"), "good"),
    "rejected": State(N_("rejected"), ""),
    "revoked": State(N_("revoked"), "bad"),
    # conditions
    "well": State(N_("well"), "good"),
    "warning": State(N_("warning"), "warn"),
    "unwell": State(N_("unwell"), "bad"),
    "silent": State(N_("silent"), "bad"),
    "unknown": State(N_("unknown"), ""),
    # the agent
    "idle": State(N_("idle"), ""),
    "checking": State(N_("checking signatures"), "run"),
    "downloading": State(N_("downloading"), "run"),
    "installing": State(N_("installing"), "run"),
    "self-testing": State(N_("self-testing"), "run"),
    "deferred": State(N_("deferred"), "warn"),
    "activating": State(N_("activating"), "run"),
    "probation": State(N_("on probation"), "run"),
    "committing": State(N_("committing"), "run"),
    "rolling-back": State(N_("rolling back"), "bad"),
    # deployments and their members
    "awaiting-approval": State(N_("awaiting approval"), "warn"),
    "running": State(N_("running"), "run"),
    "halted": State(N_("halted"), "bad"),
    "succeeded": State(N_("succeeded"), "good"),
    "cancelled": State(N_("cancelled"), ""),
    "waiting": State(N_("waiting"), ""),
    "held": State(N_("paused by an operator"), "warn"),
    "offered": State(N_("offered"), "run"),
    "updating": State(N_("updating"), "run"),
    "refused": State(N_("refused"), "bad"),
    "failed": State(N_("failed"), "bad"),
    "rolled-back": State(N_("rolled back"), "bad"),
    # releases
    "passed": State(N_("gate passed"), "good"),
    "gate-failed": State(N_("gate failed"), "bad"),
    "no-decision": State(N_("no decision record"), "warn"),
    "withdrawn": State(N_("withdrawn"), ""),
    # processes
    "at-work": State(N_("running"), "good"),
    "starting": State(N_("starting"), "run"),
    "stopped": State(N_("stopped"), ""),
    "failing": State(N_("failing"), "bad"),
}
ROLES: Mapping[str, str] = {
    "viewer": N_("viewer"),
    "operator": N_("operator"),
    "approver": N_("approver"),
    "admin": N_("administrator"),
}
STAGES: Mapping[str, str] = {
    "wait": N_("waiting for its turn"),
    "read": N_("reading the file"),
    "prepare": N_("preparing the image"),
    "network": N_("network"),
    "resample": N_("resampling"),
    "objects": N_("finding cells"),
    "measure": N_("measuring"),
    "watch": N_("watching quality"),
    "write": N_("writing results"),
    "overlay": N_("drawing the overlay"),
    "other": N_("the rest"),
}
"""Stages of a frame's time."""
NUMBERS: Mapping[str, str] = {
    "ap50": "AP@0.5",
    "map": "mAP",
    "dice": "Dice",
    "precision": N_("precision"),
    "recall": N_("recall"),
    "count_error": N_("count error"),
    "confluence_error": N_("confluence error (points)"),
}
"""Numbers of a decision record."""
CHECKS: Mapping[str, str] = {
    "min_ap50": N_("AP@0.5, at least"),
    "min_map": N_("mAP, at least"),
    "min_dice": N_("Dice, at least"),
    "min_stratum_ap50": N_("AP@0.5 of every stratum, at least"),
    "max_count_error": N_("count error, at most"),
    "max_confluence_error": N_("confluence error, at most"),
    "max_champion_loss_ap50": N_("AP@0.5 below the champion's, at most"),
    "held_out": N_("frames that it was trained on"),
}
"""Thresholds of a gate."""
LINKS: Mapping[str, str] = {
    "mask": N_("Mask"),
    "run": N_("Run"),
    "bundle": N_("Bundle"),
    "release": N_("Release"),
    "deployment": N_("Deployment"),
    "decision": N_("Decision record"),
    "override": N_("Override"),
    "optimization": N_("Optimization"),
    "training": N_("Training"),
    "data set": N_("Data set version"),
    "project": N_("Project"),
    "device": N_("Instrument"),
}
"""Links of the chain behind a mask."""
FACTS: Mapping[str, str] = {
    "name": N_("name"),
    "version": N_("version"),
    "verdict": N_("verdict"),
    "reasons": N_("reasons"),
    "approver": N_("approver"),
    "decided": N_("decided"),
    "variant": N_("variant"),
    "data_set": N_("data set"),
    "split": N_("split"),
    "policy": N_("policy"),
    "numbers": N_("numbers"),
    "thresholds": N_("thresholds"),
    "signature": N_("signature"),
    "seed": N_("seed"),
    "epochs": N_("epochs"),
    "best_epoch": N_("best epoch"),
    "validation_ap50": N_("AP@0.5 in validation"),
    "entries": N_("entries"),
    "splits": N_("splits"),
    "commit": N_("commit"),
    "uncommitted changes": N_("uncommitted changes"),
    "environment": N_("environment"),
    "instrument": N_("instrument"),
    "experiment": N_("experiment"),
    "frame": N_("frame"),
    "plate": N_("plate"),
    "well": N_("Well"),
    "count": N_("cells"),
    "confluence_percent": N_("confluence, %"),
    "segmented_at": N_("segmented at"),
    "taken_at": N_("taken at"),
    "frame_sha256": N_("raw frame"),
    "engine": N_("engine"),
    "release": N_("release"),
    "counter": N_("counter"),
    "published_by": N_("published by"),
    "published_at": N_("published at"),
    "override": N_("override"),
    "withdrawn_at": N_("withdrawn at"),
    "bytes": N_("bytes"),
    "origin_according_to": N_("origin according to"),
    "flags": N_("flags"),
    "pin": N_("pin"),
    "champion": N_("champion"),
}
"""Facts of the chain; others are shown as they are called."""
FLAGS: Mapping[str, str] = {
    "blank": N_("blank"),
    "bubble": N_("bubble"),
    "out-of-focus": N_("out-of-focus"),
    "saturated": N_("saturated"),
}
"""Flags of a frame; others are shown as they are called."""
ACTIONS: Mapping[str, str] = {
    "artifact.uploaded": N_("file uploaded"),
    "claim.made": N_("claim token created"),
    "claim.refused": N_("claim refused"),
    "claim.revoked": N_("claim token revoked"),
    "deployment.started": N_("deployment created"),
    "deployment.approved": N_("deployment approved"),
    "deployment.halted": N_("deployment halted"),
    "deployment.resumed": N_("deployment resumed"),
    "deployment.cancelled": N_("deployment cancelled"),
    "deployment.succeeded": N_("deployment succeeded"),
    "deployment.phase": N_("next phase"),
    "deployment.offered": N_("offered to instruments"),
    "deployment.awaits-approval": N_("waits for approval"),
    "deployment.member-silent": N_("instrument silent"),
    "deployment.members-changed": N_("instruments joined or left"),
    "deployment.withdrawn": N_("offer withdrawn"),
    "device.claimed": N_("instrument sent a claim"),
    "device.accepted": N_("instrument accepted"),
    "device.rejected": N_("instrument rejected"),
    "device.revoked": N_("instrument revoked"),
    "device.moved": N_("instrument moved to a group"),
    "device.renamed": N_("instrument renamed"),
    "device.tagged": N_("tags changed"),
    "device.alarm": N_("alarm"),
    "device.alarm-over": N_("alarm over"),
    "device.alarms-cleared": N_("alarms cleared"),
    "device.report-refused": N_("report refused"),
    "group.added": N_("group created"),
    "group.removed": N_("group removed"),
    "person.added": N_("person added"),
    "person.changed": N_("person changed"),
    "release.published": N_("release published"),
    "release.overridden": N_("gate overridden"),
    "release.withdrawn": N_("release withdrawn"),
    "session.opened": N_("signed in"),
    "session.closed": N_("signed out"),
    "session.refused": N_("sign-in refused"),
    "token.made": N_("API token created"),
    "token.revoked": N_("API token revoked"),
    "trust.taken": N_("signed metadata taken"),
}
"""Actions of audit events."""
_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def state(word: str) -> State:
    """How a state's word is shown; a word that is not known is shown as it is."""
    return STATES.get(word, State(word))


def size_text(size: float) -> str:
    """Bytes with a unit, three digits."""
    for unit, step in _SIZES:
        if abs(size) >= step:
            return f"{size / step:.3g} {unit}" if size < 1000 * step else f"{size / step:,.0f} {unit}"
    return f"{size:.0f} B"


def number_text(value: Any, digits: int = 2) -> str:
    """A number for people: whole numbers grouped, others with so many digits; ``–`` when there is none."""
    if value is None or isinstance(value, Undefined):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return str(value)


def duration_text(seconds: float | None, _: Translator) -> str:
    """A length of time in its two greatest units; ``–`` when there is none."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return _("{n} ms", n=f"{seconds * 1000:.0f}")
    if seconds < 10:
        return _("{n} s", n=f"{seconds:.1f}")
    whole = round(seconds)
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return _("{d} d {h} h", d=days, h=hours)
    if hours:
        return _("{h} h {m} min", h=hours, m=minutes)
    if minutes:
        return _("{m} min {s} s", m=minutes, s=rest)
    return _("{n} s", n=rest)


def when_text(at: datetime, _: Translator) -> str:
    """Date and time in UTC, in the reader's way of writing."""
    at = at.astimezone(UTC)
    if _.language == "zh-TW":
        return f"{at.year}年{at.month}月{at.day}日 {at:%H:%M} UTC"
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def ago_text(at: datetime, now: datetime, _: Translator) -> str:
    """How long ago, in one unit; the page's script keeps it fresh."""
    seconds = (now - at).total_seconds()
    if seconds < 0:
        return when_text(at, _)
    if seconds < 60:
        return _.plural("{n} second ago", "{n} seconds ago", int(seconds))
    if seconds < 3600:
        return _.plural("{n} minute ago", "{n} minutes ago", int(seconds // 60))
    if seconds < 86400:
        return _.plural("{n} hour ago", "{n} hours ago", int(seconds // 3600))
    return _.plural("{n} day ago", "{n} days ago", int(seconds // 86400))


def check_text(name: str, _: Translator) -> str:
    """A check of a gate, such as ``min_stratum_ap50[round]``."""
    base, _bracket, stratum = name.rstrip("]").partition("[")
    if base == "min_stratum_ap50" and stratum:
        return _("AP@0.5 of {stratum}, at least", stratum=stratum)
    return _(CHECKS.get(base, name))


def record_text(name: str, value: Any, _: Translator) -> str:
    """A fact of the chain: numbers and thresholds with their words, the rest as it is."""
    if name == "numbers" and isinstance(value, Mapping):
        known = [(_(word), value[n]) for n, word in NUMBERS.items() if isinstance(value.get(n), int | float)]
        return " · ".join(f"{word} {v:.3f}" for word, v in known) or fact_text(value)
    if name == "thresholds" and isinstance(value, Mapping):
        asked = {n: v for n, v in value.items() if v is not None}
        return " · ".join(f"{check_text(n, _)} {fact_text(v)}" for n, v in asked.items())
    if isinstance(value, Mapping) and any(n in NUMBERS for n in value):
        return " · ".join(
            f"{_(NUMBERS[n])} {v:.3f}" if n in NUMBERS and isinstance(v, float) else fact_text(v)
            for n, v in value.items()
        )
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return "; ".join(value)
    return fact_text(value)


def fact_text(value: Any) -> str:
    """A fact of a record, as text: numbers short, lists and dicts as JSON-like lines."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(
            f"{k}: {fact_text(v)}" if not isinstance(v, Mapping) else f"{k}: {_short(v)}" for k, v in value.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(fact_text(v) if not isinstance(v, Mapping) else _short(v) for v in value)
    return str(value)


def _short(value: Mapping[str, Any]) -> str:
    return (
        "{"
        + ", ".join(f"{k} {fact_text(v) if not isinstance(v, Mapping) else _short(v)}" for k, v in value.items())
        + "}"
    )


def reason_text(reason: Reason | None, _: Translator) -> str:
    """A reason in the reader's language; empty for none. The codes are known: ``read_reason`` sees to that."""
    if reason is None:
        return ""
    messages = catalog(_.language)
    join = "；" if _.language == "zh-TW" else "; "
    return render(reason, lambda template: messages.get(template, template), join)


def stored_reason_text(text: Any, data: Any, _: Translator) -> str:
    """The reason of a stored row or message in the reader's language.

    Args:
        text: the English text.
        data: the reason as plain data; None or undefined: it comes from an earlier version, and the text is shown.
    """
    return reason_text(read_reason(str(text or ""), data if isinstance(data, Mapping) else None), _)
