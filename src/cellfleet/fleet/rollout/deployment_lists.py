"""Deployments as API and pages show them: lists with counts, phases, members. Reads only; a few queries whatever the number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import Session

from cellfleet.fleet.refusals import not_found
from cellfleet.fleet.rollout.rules import target_size
from cellfleet.fleet.store.models import Deployment, DeploymentMember, Device, DeviceGroup, Release
from cellfleet.wire.rollout import FAILURES, DeploymentRequest, Phase

WORST_FIRST = ("rolled-back", "refused", "failed", "silent", "updating", "deferred", "offered", "succeeded", "waiting")
"""Member states in the order in which they need attention."""


@dataclass(frozen=True)
class DeploymentView:
    """A deployment with what it is about. ``counts``: member state -> number."""

    deployment: Deployment
    release: Release
    group: str
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Instruments of the deployment."""
        return sum(self.counts.values())

    @property
    def succeeded(self) -> int:
        """Instruments that have the release."""
        return self.counts.get("succeeded", 0)

    @property
    def failures(self) -> int:
        """Instruments that count as failures."""
        return sum(self.counts.get(state, 0) for state in FAILURES)


@dataclass(frozen=True)
class PhaseView:
    """A phase as it is now.

    Attributes:
        number: from 1.
        share: instruments of this phase alone, when it is complete; the shares of all phases add up to the whole group.
        counts: member state -> number, of those that were offered the release in this phase.
        state: ``done``, ``now``, ``bad`` (halted in it) or empty (still to come).
        request: the request of the deployment.
    """

    number: int
    share: int
    counts: Mapping[str, int]
    state: str
    request: Phase

    @property
    def offered(self) -> int:
        """Instruments that were offered the release in this phase."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class MemberView:
    """A member with its device's name and the time of its last message."""

    member: DeploymentMember
    name: str
    heard_at: datetime | None


def views(
    db: Session,
    *,
    before: int = 0,
    group: str = "",
    release_id: int = 0,
    states: Collection[str] = (),
    offset: int = 0,
    limit: int = 100,
) -> list[DeploymentView]:
    """Deployments, newest first.

    Args:
        before: only those with a lower number (0: all).
        group, release_id, states: only of this group, of this release, in one of these states.
        offset, limit: which part of the list.
    """
    query = _views().where(*_only(group, release_id, states)).order_by(Deployment.id.desc())
    if before:
        query = query.where(Deployment.id < before)
    found = db.execute(query.offset(offset).limit(limit)).all()
    counts = _counts(db, [d.id for d, _, _ in found])
    return [DeploymentView(d, r, g, counts.get(d.id, {})) for d, r, g in found]


def count(db: Session, *, group: str = "", release_id: int = 0, states: Collection[str] = ()) -> int:
    """How many deployments there are; arguments as of ``views``."""
    query = select(func.count(Deployment.id)).join(DeviceGroup, DeviceGroup.id == Deployment.group_id)
    return db.scalar(query.where(*_only(group, release_id, states))) or 0


def view(db: Session, deployment_id: int) -> DeploymentView:
    """One deployment.

    Raises:
        RequestRefused: 404.
    """
    found = db.execute(_views().where(Deployment.id == deployment_id)).one_or_none()
    if found is None:
        raise not_found(f"deployment {deployment_id}")
    deployment, release, group = found
    return DeploymentView(deployment, release, group, _counts(db, [deployment_id]).get(deployment_id, {}))


def _only(group: str, release_id: int, states: Collection[str]) -> list[ColumnElement[bool]]:
    conditions = []
    if group:
        conditions.append(DeviceGroup.name == group)
    if release_id:
        conditions.append(Deployment.release_id == release_id)
    if states:
        conditions.append(Deployment.state.in_(states))
    return conditions


def _views() -> Select[Deployment, Release, str]:
    query = select(Deployment, Release, DeviceGroup.name).join(Release, Release.id == Deployment.release_id)
    return query.join(DeviceGroup, DeviceGroup.id == Deployment.group_id)


def _counts(db: Session, ids: Sequence[int]) -> dict[int, dict[str, int]]:
    query = (
        select(DeploymentMember.deployment_id, DeploymentMember.state, func.count())
        .where(DeploymentMember.deployment_id.in_(ids))
        .group_by(DeploymentMember.deployment_id, DeploymentMember.state)
    )
    out: dict[int, dict[str, int]] = {}
    for deployment_id, state, number in db.execute(query):
        out.setdefault(deployment_id, {})[state] = number
    return out


def phases(db: Session, of: DeploymentView) -> list[PhaseView]:
    """The phases of a deployment, with the members that each of them has reached."""
    d = of.deployment
    query = (
        select(DeploymentMember.phase, DeploymentMember.state, func.count())
        .where(
            DeploymentMember.deployment_id == d.id,
            DeploymentMember.phase.is_not(None),
            DeploymentMember.state
            != "waiting",  # withdrawn by a halt: the rules offer it again, in whatever phase runs
        )
        .group_by(DeploymentMember.phase, DeploymentMember.state)
    )
    counts: dict[int, dict[str, int]] = {}
    for index, state, number in db.execute(query):
        counts.setdefault(index or 0, {})[state] = number
    request = DeploymentRequest.model_validate(d.request)
    out: list[PhaseView] = []
    reached = 0
    for i, phase in enumerate(request.phases):
        share = sum(counts.get(i, {}).values())
        if i >= d.phase:
            share = max(share, target_size(request, i, of.total) - reached)
        reached += share
        out.append(PhaseView(i + 1, share, counts.get(i, {}), _phase_state(d, i), phase))
    return out


def _phase_state(d: Deployment, i: int) -> str:
    if d.state == "succeeded" or i < d.phase:
        return "done"
    if i > d.phase:
        return ""
    if d.state == "halted" or (d.state == "cancelled" and d.halted_reason):
        return "bad"
    return "" if d.state == "cancelled" else "now"


def members(
    db: Session,
    deployment_id: int,
    *,
    states: Collection[str] = (),
    worst_first: bool = False,
    after: str = "",
    offset: int = 0,
    limit: int = 100,
) -> list[MemberView]:
    """Members in the order of their names, which is the order in which they are offered the release.

    Args:
        states: only those in one of these states.
        worst_first: by state (``WORST_FIRST``), then by name.
        after: only those whose names come later.
        offset, limit: which part of the list.
    """
    query = (
        select(DeploymentMember, Device.name, Device.last_seen_at)
        .join(Device, Device.id == DeploymentMember.device_id)
        .where(DeploymentMember.deployment_id == deployment_id, Device.name > after)
    )
    if states:
        query = query.where(DeploymentMember.state.in_(states))
    if worst_first:
        query = query.order_by(case({s: i for i, s in enumerate(WORST_FIRST)}, value=DeploymentMember.state))
    found = db.execute(query.order_by(Device.name).offset(offset).limit(limit))
    return [MemberView(m, name, heard) for m, name, heard in found]
