"""``state/status.json``: status of the instrument, for ``device status`` and other programs."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cellfleet.device.system.file_lock import is_held
from cellfleet.device.system.home import Home

STALE_AFTER_S = 30.0


@dataclass(frozen=True)
class Status:
    """Status of an instrument.

    Attributes:
        running: an agent runs now.
        age_s: of ``facts``; None: there are none.
        facts: latest facts of the agent; empty: it has never run.
    """

    running: bool
    age_s: float | None
    facts: dict[str, Any]


def write_status(home: Home, facts: dict[str, Any]) -> None:
    """Replace the file; readers see the old or the new one. Not synced: the next tick writes it again.

    Args:
        home: HOME of this instrument.
        facts: plain JSON data.

    Raises:
        OSError: the disk refuses.
    """
    part = home.status_file.with_suffix(".new")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps({"format_version": 1, **facts}, ensure_ascii=False), encoding="utf-8")
    for _ in range(5):  # on Windows a reader may have the file open
        with contextlib.suppress(PermissionError):
            os.replace(part, home.status_file)  # noqa: PTH105
            return


def read_status(home: Home, now: datetime) -> Status:
    """Read the newest status.

    Args:
        home: HOME of this instrument.
        now: time, for the age.
    """
    running = is_held(home.agent_lock)
    try:
        facts = json.loads(home.status_file.read_bytes())
        age_s = (now - datetime.fromisoformat(facts["at"])).total_seconds()
    except (OSError, ValueError, KeyError, TypeError):
        return Status(running, None, {})
    return Status(running, age_s, facts)


def status_lines(status: Status) -> list[tuple[str, str]]:
    """Lines for ``device status``: name and text."""
    facts = status.facts
    if not facts:
        return [("state", "has never run here" if not status.running else "starting")]
    health, counters, update = facts["health"], facts["counters"], facts.get("update")
    was = "" if status.running else "was "
    lines = [
        ("instrument", f"{facts['name']} ({facts['device_id']})"),
        ("state", _state(status)),
        (
            "server",
            facts["server"]["url"] + _server_problem(facts) if facts["server"]["url"] else "none (a fleet of one)",
        ),
        ("active", _slot(facts["active"])),
        ("previous", _slot(facts["previous"])),
    ]
    if facts["candidate"]:
        lines.append(("candidate", _slot(facts["candidate"])))
    if update:
        lines.append(("update", f"{update['name']} {update['version']}: {update['outcome']}; {update['reason']}"))
    lines += [
        ("camera", was + health["camera"] + (f", experiment {facts['experiment']}" if facts["experiment"] else "")),
        ("segmenter", f"{was}{health['segmenter']}, {health['segmenter_memory_mb']:.0f} MB"),
        ("frames", ", ".join(f"{counters[k]:,} {k}" for k in ("taken", "stored", "segmented", "failed"))),
        ("waiting", f"{health['queue_frames']:,} frames, {health['spool_items']:,} items for the server"),
        ("disk", f"{health['disk_free_mb'] / 1000:,.1f} GB free"),
        ("problems", "; ".join(health["problems"]) or "none"),
    ]
    return lines


def _state(status: Status) -> str:
    facts = status.facts
    text = str(facts["state"]) + (f": {facts['reason']}" if facts.get("reason") else "")
    if not status.running:
        return f"not running (last seen {facts['at'][:19].replace('T', ' ')} UTC, {text})"
    if status.age_s is not None and status.age_s > STALE_AFTER_S:
        return f"{text} (no status for {status.age_s:.0f} s)"
    return text


def _server_problem(facts: dict[str, Any]) -> str:
    return f" ({facts['server']['trouble']})" if facts["server"]["trouble"] else ""


def _slot(slot: dict[str, Any] | None) -> str:
    if not slot:
        return "-"
    return f"{slot['name']} {slot['version']} ({slot['variant'] or 'variant not chosen'}), since {slot['since'][:19]}"
