"""What the pages of deployments show: counts by state and phase in one query, members a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from cellfleet.fleet.store.models import Deployment, DeploymentMember, Device, DeviceGroup, Release

FAILURES = ("refused", "failed", "rolled-back", "silent")
LIVE = ("awaiting-approval", "running", "halted")
STATES = ("succeeded", "updating", "deferred", "offered", "rolled-back", "refused", "failed", "silent", "waiting")
"""Member states in the order in which bars show them."""
_SEVERITY = ("rolled-back", "refused", "failed", "silent", "updating", "deferred", "offered", "succeeded", "waiting")


@dataclass(frozen=True)
class Row:
    """A deployment with its release, group and members by state."""

    deployment: Deployment
    release: Release
    group: str
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def succeeded(self) -> int:
        return self.counts.get("succeeded", 0)

    @property
    def failures(self) -> int:
        return sum(self.counts.get(w, 0) for w in FAILURES)

    @property
    def bar(self) -> list[tuple[int, str]]:
        """Parts of the progress bar: (count, class)."""
        under = sum(self.counts.get(w, 0) for w in ("updating", "offered"))
        deferred = self.counts.get("deferred", 0)
        return [(self.succeeded, "f-good"), (under, "f-run"), (deferred, "f-warn"), (self.failures, "f-bad")]


@dataclass(frozen=True)
class PhaseView:
    """A phase as it stands. ``state``: done, now, bad or empty (still to come).

    ``upto``: devices that are in this phase or in one before when it is complete.
    """

    number: int
    size: str
    upto: int
    counts: Mapping[str, int]
    state: str
    request: Mapping[str, Any]

    @property
    def offered(self) -> int:
        return sum(self.counts.values())

    @property
    def failures(self) -> int:
        return sum(self.counts.get(w, 0) for w in FAILURES)

    @property
    def bar(self) -> list[tuple[int, str]]:
        c = self.counts
        under = c.get("updating", 0) + c.get("offered", 0)
        return [
            (c.get("succeeded", 0), "f-good"),
            (under, "f-run"),
            (c.get("deferred", 0), "f-warn"),
            (self.failures, "f-bad"),
        ]


def deployments(
    db: Session,
    *,
    states: Sequence[str] = (),
    release_id: int | None = None,
    group: str = "",
    offset: int = 0,
    limit: int = 30,
) -> tuple[list[Row], int]:
    """Deployments, newest first, and how many there are in all. Two queries whatever the number."""
    of = select(Deployment, Release, DeviceGroup.name).join(Release, Release.id == Deployment.release_id)
    of = of.join(DeviceGroup, DeviceGroup.id == Deployment.group_id)
    if states:
        of = of.where(Deployment.state.in_(states))
    if release_id is not None:
        of = of.where(Deployment.release_id == release_id)
    if group:
        of = of.where(DeviceGroup.name == group)
    total = db.scalar(select(func.count()).select_from(of.with_only_columns(Deployment.id).subquery())) or 0
    found = db.execute(of.order_by(Deployment.id.desc()).offset(offset).limit(limit)).all()
    counts = _counts(db, [d.id for d, _, _ in found])
    return [Row(d, r, g, counts.get(d.id, {})) for d, r, g in found], total


def deployment(db: Session, deployment_id: int) -> Row | None:
    """One deployment."""
    found = db.execute(
        select(Deployment, Release, DeviceGroup.name)
        .join(Release, Release.id == Deployment.release_id)
        .join(DeviceGroup, DeviceGroup.id == Deployment.group_id)
        .where(Deployment.id == deployment_id)
    ).first()
    return (
        None
        if found is None
        else Row(found[0], found[1], found[2], _counts(db, [deployment_id]).get(deployment_id, {}))
    )


def _counts(db: Session, ids: Sequence[int]) -> dict[int, dict[str, int]]:
    made: dict[int, dict[str, int]] = {}
    for ident, state, n in db.execute(
        select(DeploymentMember.deployment_id, DeploymentMember.state, func.count())
        .where(DeploymentMember.deployment_id.in_(ids))
        .group_by(DeploymentMember.deployment_id, DeploymentMember.state)
    ):
        made.setdefault(ident, {})[state] = n
    return made


def phases(db: Session, row: Row) -> list[PhaseView]:
    """The phases of a deployment with what happened in each."""
    counts: dict[int, dict[str, int]] = {}
    for phase, state, n in db.execute(
        select(DeploymentMember.phase, DeploymentMember.state, func.count())
        .where(DeploymentMember.deployment_id == row.deployment.id, DeploymentMember.phase.is_not(None))
        .group_by(DeploymentMember.phase, DeploymentMember.state)
    ):
        counts.setdefault(phase or 0, {})[state] = n
    d, made = row.deployment, []
    asked = list(d.request.get("phases") or [{"percent": 100}])
    for i, phase in enumerate(asked):
        last = i == len(asked) - 1
        size = str(phase["count"]) if phase.get("count") else f"{phase.get('percent') or 100:g} %"
        made.append(
            PhaseView(
                i + 1,
                size,
                row.total if last else _upto(phase, row.total),
                counts.get(i, {}),
                _phase_state(d, i),
                phase,
            )
        )
    return made


def _upto(phase: Mapping[str, Any], total: int) -> int:
    if phase.get("count"):
        return min(int(phase["count"]), total)
    return min(total, -(-total * float(phase.get("percent") or 100) // 100).__int__())


def _phase_state(d: Deployment, i: int) -> str:
    if d.state == "succeeded" or i < d.phase:
        return "done"
    if i > d.phase:
        return ""
    if d.state == "halted" or (d.state == "cancelled" and d.halted_reason):
        return "bad"
    return "" if d.state == "cancelled" else "now"


def members(
    db: Session, deployment_id: int, *, state: str = "", offset: int = 0, limit: int = 50
) -> tuple[list[tuple[DeploymentMember, str, Any]], int]:
    """Members with the instrument's name and when it was heard, those with trouble first; and how many there are."""
    of = (
        select(DeploymentMember, Device.name, Device.last_seen_at)
        .join(Device, Device.id == DeploymentMember.device_id)
        .where(DeploymentMember.deployment_id == deployment_id)
    )
    if state:
        of = of.where(DeploymentMember.state.in_(FAILURES if state == "trouble" else (state,)))
    total = (
        db.scalar(select(func.count()).select_from(of.with_only_columns(DeploymentMember.device_id).subquery())) or 0
    )
    severity = case({w: i for i, w in enumerate(_SEVERITY)}, value=DeploymentMember.state, else_=len(_SEVERITY))
    rows = db.execute(of.order_by(severity, Device.name).offset(offset).limit(limit))
    return [(m, name, seen) for m, name, seen in rows], total
