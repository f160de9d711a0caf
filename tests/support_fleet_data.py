"""A fleet that looks real, written through the tables: devices, releases, deployments, experiments, curves, pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import (
    Deployment,
    DeploymentMember,
    Device,
    DeviceEvent,
    DeviceGroup,
    GaugePoint,
    Release,
)
from cellfleet.wire.reason import because, english
from support_fleet_experiments import add_experiment, add_pictures, pictures
from support_fleet_releases import facts_of, make_releases, sha, slot_row

LABS = ("Basel", "Taipei", "Hsinchu", "Boston", "Leiden", "Kyoto", "Lund", "Oxford")


@dataclass
class Filled:
    """What was written, by the names that tests use."""

    devices: list[str] = field(default_factory=list)
    releases: dict[str, int] = field(default_factory=dict)
    deployments: dict[str, int] = field(default_factory=dict)
    experiment: str = ""


def fill(context: Context, devices: int = 3, *, frames: int = 36, with_pictures: bool = True, seed: int = 5) -> Filled:
    """Write a fleet. Half of the devices beyond the first few have no results, as in a lab at night."""
    filled, chance, now = Filled(), random.Random(seed), context.clock.now()
    drawn = pictures() if with_pictures else []
    with context.sessions() as db:
        groups = _groups(db, now)
        releases = make_releases(db, context, now)
        filled.releases = {v: r.id for v, r in releases.items()}
        rows = [_device(db, i, devices, groups, releases, now, chance) for i in range(devices)]
        filled.devices = [d.name for d in rows]
        db.flush()
        _deployments(db, rows, groups, releases, now, filled)
        for i, device in enumerate(rows):
            if device.state == "accepted" and (i < 4 or i % 2 == 0):
                experiment = add_experiment(db, device, releases, now, frames if i < 4 else 6, chance, last=i)
                filled.experiment = filled.experiment or experiment
                if i < 4:
                    add_pictures(db, context, device, experiment, drawn, now)
            _events(db, device, now, i)
        _waiting(db, now)
        _audit(db, context, rows, filled)
        db.commit()
    return filled


def _groups(db: Session, now: datetime) -> dict[str, DeviceGroup]:
    made = {
        name: DeviceGroup(name=name, description=text, created_at=now - timedelta(days=90))
        for name, text in (
            ("pilot", "two instruments near us"),
            ("europe", "customers in Europe"),
            ("asia", "customers in Asia"),
        )
    }
    db.add_all(made.values())
    db.flush()
    return made


def _device(
    db: Session,
    i: int,
    n: int,
    groups: dict[str, DeviceGroup],
    releases: dict[str, Release],
    now: datetime,
    chance: random.Random,
) -> Device:
    ident, name = f"dev-{sha('device', i)[:12]}", f"{LABS[i % len(LABS)]}-{i + 1:03d}"
    pending, silent = n > 5 and i % 83 == 11, n > 5 and i % 41 == 7
    group = ("pilot", "europe", "asia")[0 if i < 2 else 1 + i % 2]
    active = releases["1.0.0" if i % 5 == 2 else "1.1.0"]
    seen = now - (timedelta(hours=7, minutes=i) if silent else timedelta(seconds=3 + i % 40))
    full = because("camera.disk-full", free_mb=412, limit_mb=1024)
    problems = [full] if i % 29 == 2 else []
    alarms = {"two-machines": "reports come from two machines with this key"} if n > 5 and i % 149 == 20 else {}
    health = {
        "disk_free_mb": 412.0 if problems else 210_000 + chance.random() * 1e5,
        "queue_frames": 23 if problems else 0,
        "spool_items": chance.randrange(4),
        "spool_mb": 0.2,
        "segmenter_memory_mb": 640 + chance.random() * 90,
        "segmenter_restarts": int(i % 17 == 3),
        "camera": "waiting" if problems else "running",
        "segmenter": "running",
        "clock_offset_s": 0.1,
        "problems": [english(p) for p in problems],
        "problems_data": [p.model_dump(mode="json") for p in problems],
    }
    reported = {
        "protocol": 1,
        "device_id": ident,
        "sequence": 900 + i,
        "boot_id": f"boot-{i}",
        "at": seen.isoformat(),
        "generation": 3,
        "state": "idle",
        "active": slot_row(active, now - timedelta(days=9, hours=i % 20)),
        "previous": slot_row(releases["1.0.0"], now - timedelta(days=50)),
        "candidate": None,
        "update": None,
        "experiment": f"plate-{240 + i}",
        "counters": {"taken": 8412, "stored": 8412, "segmented": 8409, "failed": 0},
        "health": health,
        "facts": facts_of(),
    }
    device = Device(
        id=ident,
        name=name,
        public_key=f"key {i}",
        key_sha256=sha("key", i),
        state="pending" if pending else "accepted",
        group_id=None if pending else groups[group].id,
        tags=["10x"] if i % 3 else ["10x", "CO2"],
        facts=facts_of(),
        created_at=now - timedelta(days=80),
        decided_at=now - timedelta(days=80),
        decided_by="person:ada",
        last_seen_at=seen,
        desired={},
        reported={} if pending else reported,
        reported_sequence=900 + i,
        boot_id=f"boot-{i}",
        active_sha256="" if pending else active.sha256,
        alarms=alarms,
    )
    db.add(device)
    return device


def _deployments(
    db: Session,
    rows: Sequence[Device],
    groups: dict[str, DeviceGroup],
    releases: dict[str, Release],
    now: datetime,
    filled: Filled,
) -> None:
    phases = [
        {"count": 1, "soak_s": 3600, "approval": False},
        {"percent": 100.0, "min_success_percent": 95.0, "approval": True},
    ]

    def deploy(word: str, version: str, group: str, state: str, days: float, **more: Any) -> Deployment:
        since = now - timedelta(days=days)
        request = {
            "release_id": releases[version].id,
            "group": group,
            "phases": phases,
            "needs_approval": False,
            "reason": "finer outlines, asked for by three labs",
        }
        made = Deployment(
            release_id=releases[version].id,
            group_id=groups[group].id,
            state=state,
            request=request,
            phase_since=since,
            created_by="person:ada",
            created_at=since,
            **more,
        )
        db.add(made)
        db.flush()
        filled.deployments[word] = made.id
        return made

    done = deploy(
        "done",
        "1.1.0",
        "pilot",
        "succeeded",
        13,
        phase=1,
        ended_at=now - timedelta(days=12),
        approved_by="person:grace",
    )
    for d in (d for d in rows if d.group_id == groups["pilot"].id):
        _member(db, done, d, "succeeded", now - timedelta(days=13), "activated in 4.2 s; 20 frames on probation")
    running = deploy(
        "running", "1.1.0", "europe", "running", 0.1, phase=1, approved_by="person:grace", approved_phase=1
    )
    words = ("succeeded", "updating", "deferred", "waiting", "succeeded", "offered")
    for i, d in enumerate(d for d in rows if d.group_id == groups["europe"].id):
        state = words[i % len(words)]
        reason = "an experiment runs until 21:40; the update waits for it" if state == "deferred" else ""
        under_way = {"updating": ("downloading", "self-testing", "probation")[i // 6 % 3], "deferred": "deferred"}
        if state in under_way and d.reported:
            d.reported = {**d.reported, "state": under_way[state]}
        _member(db, running, d, state, now - timedelta(hours=2), reason, phase=0 if i == 0 else 1)
    asia = [d for d in rows if d.group_id == groups["asia"].id] or [rows[-1]]
    refused = because("selftest.failed", because("selftest.ap50", ap50=0.03, limit=0.4))
    first = because("rollout.member-refused", refused, name=asia[0].name)
    why = because("rollout.halt-count", first, phase=1, failures=1, limit=0)
    halted = deploy(
        "halted",
        "1.2.0",
        "asia",
        "halted",
        1,
        phase=0,
        ended_at=None,
        halted_reason=english(why),
        halted_data=why.model_dump(mode="json"),
    )
    _member(
        db,
        halted,
        asia[0],
        "refused",
        now - timedelta(days=1),
        english(refused),
        phase=0,
    )
    for d in asia[1:]:
        _member(db, halted, d, "waiting", None, "", phase=None)


def _waiting(db: Session, now: datetime) -> None:
    """An instrument that claimed its place and waits."""
    db.add(
        Device(
            id=f"dev-{sha('waiting')[:12]}",
            name="Graz-new",
            public_key="key",
            key_sha256=sha("waiting key"),
            state="pending",
            tags=[],
            facts=facts_of(),
            created_at=now - timedelta(minutes=12),
            desired={},
            reported={},
            alarms={},
        )
    )


def _audit(db: Session, context: Context, rows: Sequence[Device], filled: Filled) -> None:
    for d in rows[:8]:
        audit.record(db, context, "person:ada", "device.accepted", f"device:{d.id}", name=d.name)
    for version, number in filled.releases.items():
        reason = (
            "Customer in Leiden needs debris-heavy plates today; agreed by phone with Dr Lin."
            if version == "1.2.0"
            else ""
        )
        audit.record(db, context, "person:ada", "release.published", f"release:{number}", reason, override=bool(reason))
    for word, number in filled.deployments.items():
        audit.record(
            db,
            context,
            "person:ada",
            "deployment.started",
            f"deployment:{number}",
            "finer outlines, asked for by three labs",
        )
        if word == "halted":
            audit.record(
                db,
                context,
                "server",
                "deployment.halted",
                f"deployment:{number}",
                because("rollout.empty"),
            )


def _member(
    db: Session,
    deployment: Deployment,
    device: Device,
    state: str,
    at: datetime | None,
    reason: str,
    phase: int | None = 0,
) -> None:
    waiting = state == "waiting"
    ended = at + timedelta(minutes=9) if at and state in ("succeeded", "refused", "failed", "rolled-back") else None
    db.add(
        DeploymentMember(
            deployment_id=deployment.id,
            device_id=device.id,
            state=state,
            phase=None if waiting else phase,
            offered_at=None if waiting else at,
            ended_at=ended,
            reason=reason,
            update={},
        )
    )


def _events(db: Session, device: Device, now: datetime, i: int) -> None:
    walk = (
        ("idle", "checking", "update-wanted", ""),
        ("checking", "downloading", "trusted", ""),
        ("downloading", "installing", "downloaded", ""),
        ("installing", "self-testing", "installed", ""),
        ("self-testing", "deferred", "passed", "3 golden frames, least AP@0.5 0.81"),
        ("deferred", "activating", "may-activate", ""),
        ("activating", "probation", "activated", ""),
        ("probation", "committing", "good", "20 frames, median 299 ms"),
        ("committing", "idle", "committed", ""),
    )
    start = now - timedelta(days=9, minutes=i)
    for n, (source, target, trigger, reason) in enumerate(walk):
        at = start + timedelta(seconds=40 * n)
        content = {
            "event": "agent",
            "at": at.isoformat(),
            "source": source,
            "target": target,
            "trigger": trigger,
            "reason": reason,
            "deployment_id": 1,
            "release_id": 2,
            "numbers": {},
        }
        db.add(
            DeviceEvent(
                device_id=device.id, at=at, kind="agent", content=content, digest=sha(device.id, json.dumps(content))
            )
        )
    incident = {
        "event": "incident",
        "at": (now - timedelta(hours=3)).isoformat(),
        "kind": "server-away",
        "text": "the server was away for 4 minutes; 12 items wait in the spool",
    }
    db.add(
        DeviceEvent(
            device_id=device.id,
            at=now - timedelta(hours=3),
            kind="incident",
            content=incident,
            digest=sha(device.id, "incident"),
        )
    )
    for n in range(12):
        db.add(
            GaugePoint(
                device_id=device.id,
                name="cellfleet.queue.frames",
                at=now - timedelta(minutes=n),
                value=float(n % 3),
                unit="1",
            )
        )
