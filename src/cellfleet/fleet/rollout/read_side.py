"""Deployments for people: lists with counts, members. Reads only; a few queries whatever the number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cellfleet.fleet.store.models import Deployment, DeploymentMember, Device, DeviceGroup, Release


@dataclass(frozen=True)
class DeploymentView:
    """A deployment with what it is about. ``counts``: member state -> number."""

    deployment: Deployment
    release: Release
    group: str
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MemberView:
    """A member with its device's name and when that was heard."""

    member: DeploymentMember
    name: str
    heard_at: datetime | None


def views(
    db: Session,
    *,
    ids: Sequence[int] | None = None,
    before: int = 0,
    group: str = "",
    release_id: int = 0,
    state: str = "",
    limit: int = 100,
) -> list[DeploymentView]:
    """Deployments, newest first.

    Args:
        ids: only these.
        before: only those with a lower number (0: all).
        group, release_id, state: only of this.
    """
    query = (
        select(Deployment, Release, DeviceGroup.name)
        .join(Release, Release.id == Deployment.release_id)
        .join(DeviceGroup, DeviceGroup.id == Deployment.group_id)
        .order_by(Deployment.id.desc())
        .limit(limit)
    )
    if ids is not None:
        query = query.where(Deployment.id.in_(ids))
    if before:
        query = query.where(Deployment.id < before)
    if group:
        query = query.where(DeviceGroup.name == group)
    if release_id:
        query = query.where(Deployment.release_id == release_id)
    if state:
        query = query.where(Deployment.state == state)
    found = db.execute(query).all()
    counts = _counts(db, [d.id for d, _, _ in found])
    return [DeploymentView(d, r, g, counts.get(d.id, {})) for d, r, g in found]


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


def members(db: Session, deployment_id: int, *, after: str = "", limit: int = 100) -> list[MemberView]:
    """Members in the order of their names, which is the order in which they are offered the release."""
    query = (
        select(DeploymentMember, Device.name, Device.last_seen_at)
        .join(Device, Device.id == DeploymentMember.device_id)
        .where(DeploymentMember.deployment_id == deployment_id, Device.name > after)
        .order_by(Device.name)
        .limit(limit)
    )
    return [MemberView(m, name, heard) for m, name, heard in db.execute(query)]
