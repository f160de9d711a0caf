"""Releases, deployments and instruments of a fleet server under test, through its API and its services."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cellfleet.fleet import ticker, trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Caller, Person
from cellfleet.fleet.rollout import reports
from cellfleet.fleet.store.models import Artifact, Deployment, DeploymentMember, Device
from cellfleet.lineage import SigningKey, sign
from cellfleet.trust import TrustFolder
from cellfleet.trust.folder import ArtifactBytes as Published
from cellfleet.wire.reason import Reason
from cellfleet.wire.states import Counters, DesiredState, ReportedState, SlotReport, UpdateReport
from support_fleet import FACTS, TestClient, TestDevice, World

PASSPHRASE = "a passphrase of the tests"
RUN = "ab" * 32


def secrets(_key: str) -> str:
    """The passphrase of every key of the tests."""
    return PASSPHRASE


def person(role: str, name: str = "") -> Person:
    """A person, as services see them."""
    return Person(1, name or role, role, "token", "0" * 64)  # type: ignore[arg-type]


def decision(sha256: str, verdict: str = "passed", **more: Any) -> dict[str, Any]:
    """Payload of a decision record of an artifact."""
    return {
        "format_version": 1,
        "kind": "decision",
        "bundle": sha256,
        "verdict": verdict,
        "reasons": [] if verdict == "passed" else ["AP@0.5 is 0.112, below the threshold 0.600"],
        "approver": "Dr Lin Mei-hua",
        **more,
    }


@dataclass
class Publisher:
    """Who publishes: a trust folder, a decision key whose public half the server knows, and the store."""

    context: Context
    folder: Path
    key: SigningKey
    bytes_of: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def at(cls, context: Context, template: Path) -> Publisher:
        """Copy a trust folder into the server's project, and let the server take it."""
        shutil.copytree(template, context.path(context.settings.trust), dirs_exist_ok=True)
        key = SigningKey.load_or_create(context.path("keys/decision.pem"))
        trust_repository.take_folder(context)
        return cls(context, context.path(context.settings.trust), key)

    def artifact(self, content: bytes) -> str:
        """Bytes in the server's store, as after an upload; their digest."""
        digest = self.context.blobs.put([content])
        self.bytes_of[digest] = content
        with self.context.sessions() as db:
            if db.get(Artifact, digest) is None:
                now = self.context.clock.now()
                db.add(Artifact(sha256=digest, length=len(content), uploaded_by="person:tests", uploaded_at=now))
        return digest

    def request(
        self,
        version: str,
        *,
        name: str = "cells",
        content: bytes = b"",
        verdict: str = "passed",
        key: SigningKey | None = None,
        keep: bool = True,
        **more: Any,
    ) -> dict[str, Any]:
        """Body of POST /api/v1/releases. ``verdict`` "" leaves the record out; ``more`` replaces fields."""
        content = content or f"bundle {name} {version}".encode()
        digest = self.artifact(content)
        folder = TrustFolder.load(self.folder)
        publication = folder.publish(
            Published(digest, len(content)),
            kind="model",
            name=name,
            version=version,
            secrets=secrets,
            now=self.context.clock.now(),
        )
        if keep:
            folder.keep(publication)
        release = {
            "release_id": 1,
            "kind": "model",
            "name": name,
            "version": version,
            "counter": publication.counter,
            "target_path": publication.target_path,
            "sha256": digest,
            "length": len(content),
        }
        envelope = sign(decision(digest, verdict), key or self.key) if verdict else None
        files = {n: b.decode() for n, b in publication.files.items()}
        return {"release": release, "metadata": files, "decision": envelope, **more}

    def publish(self, http: TestClient, version: str, **more: Any) -> int:
        """Publish a release through the API; its number."""
        answer = http.post("/api/v1/releases", json=self.request(version, **more))
        assert answer.status_code in (200, 201), answer.text
        return int(answer.json()["release"]["release_id"])


@dataclass
class Instrument:
    """An instrument's side of the rollout: it asks and reports like an agent, and is told what happens to it."""

    device: TestDevice
    sequence: int = 0
    boot_id: str = "boot-1"
    active: SlotReport | None = None
    update: UpdateReport | None = None
    state: str = "idle"
    counters: Counters = field(default_factory=Counters)

    @property
    def caller(self) -> Caller:
        return Caller(self.device.device_id, self.device.name)

    def ask(self, context: Context) -> DesiredState:
        """The desired state."""
        from cellfleet.fleet.rollout import desired_state

        found = desired_state.ask(context, self.device.device_id).state
        assert found is not None
        return found

    def report(self, context: Context, at: datetime | None = None) -> ReportedState:
        """Report how it is."""
        self.sequence += 1
        now = context.clock.now()
        message = ReportedState(
            device_id=self.device.device_id,
            sequence=self.sequence,
            boot_id=self.boot_id,
            at=at or now,
            generation=self.ask(context).generation,
            state=self.state,  # type: ignore[arg-type]
            active=self.active,
            update=self.update,
            counters=self.counters,
            facts=FACTS,
        )
        reports.take(context, self.caller, message)
        return message

    def moves(self, context: Context, state: str, outcome: str, reason: str = "", data: Reason | None = None) -> None:
        """Its agent gets into a state with what the server wants now, and it reports so; ``data``: of the reason."""
        wanted = self.ask(context)
        assert wanted.release is not None, f"{self.device.name} is offered nothing"
        now = context.clock.now()
        self.state = state
        self.update = UpdateReport(
            deployment_id=wanted.deployment_id,
            release_id=wanted.release.release_id,
            state=state,  # type: ignore[arg-type]
            outcome=outcome,  # type: ignore[arg-type]
            reason=reason,
            reason_data=data,
            started_at=now,
            changed_at=now,
        )
        if outcome == "succeeded" or state in ("probation", "committing"):
            r = wanted.release
            self.active = SlotReport(
                release_id=r.release_id,
                name=r.name,
                version=r.version,
                counter=r.counter,
                sha256=r.sha256,
                run_digest=RUN,
                since=now,
            )
        self.report(context)

    def succeeds(self, context: Context) -> None:
        """It goes all the way."""
        self.moves(context, "downloading", "running")
        self.moves(context, "probation", "running")
        self.moves(context, "idle", "succeeded")


def instruments(world: World, group: str, count: int) -> list[Instrument]:
    """Accepted devices in a group: XYZ-001, XYZ-002 ..."""
    return [Instrument(world.device(f"XYZ-{i + 1:03}", group=group)) for i in range(count)]


def member_states(context: Context, deployment_id: int) -> list[str]:
    """States of the members in the order of their names."""
    with context.reading() as db:
        query = db.query(DeploymentMember.state).join(Device, Device.id == DeploymentMember.device_id)
        return [s for (s,) in query.filter(DeploymentMember.deployment_id == deployment_id).order_by(Device.name)]


def deployment(context: Context, deployment_id: int) -> Deployment:
    """The row as it is now."""
    with context.reading() as db:
        return db.get_one(Deployment, deployment_id)


def start(http: TestClient, release_id: int, group: str, phases: Sequence[Mapping[str, Any]], **more: Any) -> int:
    """Start a deployment through the API; its number."""
    body = {"release_id": release_id, "group": group, "phases": list(phases), **more}
    answer = http.post("/api/v1/deployments", json=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def tick(context: Context) -> None:
    """What the ticker does; an error would be logged there, here it shows."""
    ticker.tick(context)


def digest(*parts: object) -> str:
    """A digest that depends on the parts only."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
