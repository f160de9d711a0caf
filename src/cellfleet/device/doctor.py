"""``device doctor``: checks everything that an instrument needs; each finding says what to do."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cellfleet.config import Project
from cellfleet.device.provisioning import ask_state
from cellfleet.device.server.client import ServerClient
from cellfleet.device.server.server_sync import CLOCK_OFF_S
from cellfleet.device.slots import Slots
from cellfleet.device.system.file_lock import is_held
from cellfleet.device.system.home import Home
from cellfleet.device.system.host_info import engines
from cellfleet.device.system.identity import load_anchors, load_identity, load_key
from cellfleet.device.update.agent_factory import client_of
from cellfleet.device.update.status_file import STALE_AFTER_S, read_status
from cellfleet.errors import CellfleetError
from cellfleet.ports import Clock

Grade = Literal["ok", "warn", "bad"]
_EXPIRES_SOON = timedelta(days=7)
_BACKLOG_MB = 100.0


@dataclass(frozen=True)
class Finding:
    """Result of a check. ``advice`` says what to do; empty when the grade is ok."""

    what: str
    grade: Grade
    text: str
    advice: str = ""


@dataclass(frozen=True)
class _Instrument:
    home: Home
    project: Project
    clock: Clock
    client: ServerClient | None


def examine(home: Home, project: Project, clock: Clock) -> list[Finding]:
    """Run all checks. A check that fails with an error is a finding.

    Args:
        home: folder of the instrument.
        project: its settings.
        clock: time.

    Returns:
        The findings, in a fixed order.
    """
    try:
        identity = load_identity(home)
        client = client_of(identity, project, clock) if identity is not None else None
    except CellfleetError:
        client = None
    instrument = _Instrument(home, project, clock, client)
    return [finding for check in _CHECKS for finding in _guarded(check, instrument)]


def _guarded(check: Callable[[_Instrument], list[Finding]], instrument: _Instrument) -> list[Finding]:
    try:
        return check(instrument)
    except CellfleetError as e:
        return [Finding(check.__name__.lstrip("_"), "bad", e.message, e.hint)]


def _identity(p: _Instrument) -> list[Finding]:
    identity = load_identity(p.home)
    if identity is None:
        advice = "run `cellfleet device provision HOME ...`"
        return [Finding("identity", "bad", f"{p.home.root} was not provisioned", advice)]
    return [Finding("identity", "ok", f"{identity.record.name} ({identity.device_id})")]


def _key(p: _Instrument) -> list[Finding]:
    path = p.home.identity / "device.pem"
    if not path.exists():
        return []
    load_key(p.home)
    mode = path.stat().st_mode & 0o077
    if mode:
        return [Finding("key", "warn", f"{path} can be read by others", f"chmod 600 {path}")]
    return [Finding("key", "ok", "only its owner can read it")]


def _disk(p: _Instrument) -> list[Finding]:
    usage = shutil.disk_usage(p.home.root)
    free_mb, min_free_mb = usage.free / 1e6, p.project.settings.device.min_free_mb
    text = f"{free_mb / 1000:,.1f} GB free, the camera waits below {min_free_mb / 1000:,.1f} GB"
    if free_mb < min_free_mb:
        return [Finding("disk", "bad", text, f"free space on the disk of {p.home.root}")]
    if free_mb < 3 * min_free_mb:
        return [Finding("disk", "warn", text, "the disk is nearly full; move old experiments elsewhere")]
    return [Finding("disk", "ok", text)]


def _engines(_: _Instrument) -> list[Finding]:
    found = engines()
    if not found:
        return [Finding("engines", "bad", "none is installed", "pip install onnxruntime")]
    return [Finding("engines", "ok", ", ".join(f"{k} {v}" for k, v in found.items()))]


def _server(p: _Instrument) -> list[Finding]:
    if p.client is None:
        return [Finding("server", "ok", "no server: a fleet of one")]
    url = p.client.base_url
    try:
        state = ask_state(p.client)
    except CellfleetError as e:
        return [
            Finding(
                "server", "bad", e.message, e.hint or f"check that {url} is the right address and that the server runs"
            )
        ]
    offset_s = p.client.clock_offset_s
    grade: Grade = "ok" if state == "accepted" else "warn" if state == "pending" else "bad"
    advice = "" if grade == "ok" else f"an operator must run `cellfleet fleet accept` (now {state})"
    found = [Finding("server", grade, f"{url}: this instrument is {state}", advice)]
    if abs(offset_s) > CLOCK_OFF_S:
        text = f"{abs(offset_s):.0f} s {'behind' if offset_s > 0 else 'ahead of'} the server's"
        return [*found, Finding("clock", "bad", text, "set this machine's clock (NTP)")]
    return [*found, Finding("clock", "ok", f"within {abs(offset_s):.0f} s of the server's")]


def _trust(p: _Instrument) -> list[Finding]:
    if load_anchors(p.home) is None:
        return [
            Finding("trust", "bad", "no trust anchors: nothing can be installed", "provision this instrument again")
        ]
    expiries = _expiries(p.home.trust)
    if not expiries:
        return [Finding("trust", "ok", "the roots are pinned; no update was checked yet")]
    name, first = min(expiries, key=lambda e: e[1])
    left = first - p.clock.now()
    text = f"metadata is valid until {first:%Y-%m-%d %H:%M} UTC (first: {name})"
    if left <= timedelta(0):
        return [Finding("trust", "warn", text, "the next update renews it; if not, the server must renew it")]
    roots = [when for file, when in expiries if "root" in file]
    if roots and min(roots) - p.clock.now() < _EXPIRES_SOON:
        return [Finding("trust", "warn", text, "the publisher must rotate the root soon: `cellfleet trust rotate`")]
    return [Finding("trust", "ok", text)]


def _slots(p: _Instrument) -> list[Finding]:
    slots = Slots(p.home)
    if not slots.pointer.active:
        return [Finding("active", "warn", "no bundle is active: frames are stored and wait", "deploy or install one")]
    out = []
    for role in ("active", "previous"):
        sha256 = getattr(slots.pointer, role)
        if not sha256:
            continue
        slot = slots.intact(sha256)
        if slot is None:
            advice = "restart the instrument: it rolls back to an intact slot and downloads this one again"
            out.append(Finding(role, "bad", f"the slot {sha256[:12]} is damaged", advice))
        else:
            out.append(Finding(role, "ok", f"{slot.label}, {slot.variant}, bytes verified"))
    return out


def _camera(p: _Instrument) -> list[Finding]:
    camera = p.project.settings.camera
    source = p.project.path(camera.source)
    if not source.exists():
        advice = "make the folder, or set camera.source in cellfleet.toml"
        return [Finding("camera", "bad", f"{source} does not exist", advice)]
    found = [Finding("camera", "ok", f"{camera.kind} of {source}")]
    if p.home.camera_hold.exists():
        found.append(
            Finding("camera", "warn", "the camera is held", "release it: `cellfleet device camera HOME start`")
        )
    return found


def _processes(p: _Instrument) -> list[Finding]:
    if not is_held(p.home.run_lock):
        return [Finding("processes", "warn", "the instrument is not running", "start it: `cellfleet device run HOME`")]
    status = read_status(p.home, p.clock.now())
    if not status.running or status.age_s is None or status.age_s > STALE_AFTER_S:
        return [Finding("processes", "bad", "the agent does not respond", f"see {p.home.log / 'agent.log'}")]
    problems = status.facts["health"]["problems"]
    if problems:
        return [Finding("processes", "warn", "; ".join(problems), "see `cellfleet device status HOME`")]
    return [Finding("processes", "ok", f"running, state {status.facts['state']}")]


def _spool(p: _Instrument) -> list[Finding]:
    size_mb = _size_mb(p.home.spool_file)
    if p.home.spool_file.exists():
        try:
            with sqlite3.connect(f"{p.home.spool_file.as_uri()}?mode=ro", uri=True) as db:
                intact = db.execute("pragma quick_check(1)").fetchone()[0] == "ok"
            db.close()
        except sqlite3.Error as e:
            return [Finding("spool", "bad", f"{p.home.spool_file} cannot be read: {e}", "see agent.log")]
        if not intact:
            advice = "move it away; the server misses the events in it, results stay here"
            return [Finding("spool", "bad", f"{p.home.spool_file} is damaged", advice)]
    if size_mb > _BACKLOG_MB:
        return [Finding("spool", "warn", f"{size_mb:.0f} MB are not sent yet", "is the server reachable?")]
    return [Finding("spool", "ok", f"{size_mb:.1f} MB")]


_CHECKS: tuple[Callable[[_Instrument], list[Finding]], ...] = (
    _identity, _key, _disk, _engines, _server, _trust, _slots, _camera, _processes, _spool,
)  # fmt: skip


def _expiries(folder: Path) -> list[tuple[str, datetime]]:
    """When each metadata file expires; skips unreadable files, which the agent refuses."""
    out = []
    for path in sorted(folder.rglob("*.json")):
        try:
            text = json.loads(path.read_bytes())["signed"]["expires"]
            out.append((str(path.relative_to(folder)), datetime.fromisoformat(text)))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return out


def _size_mb(path: Path) -> float:
    return sum(f.stat().st_size for f in path.parent.glob(f"{path.name}*")) / 1e6 if path.parent.is_dir() else 0.0
