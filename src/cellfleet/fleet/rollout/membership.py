"""Members of a deployment with their devices: read, locked, joined when an instrument enters the group, deleted when it leaves.

Whoever changes members holds the deployment's row first and then the rows of devices, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, defer

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.rollout.rules import has_activated
from cellfleet.fleet.store.models import Deployment, DeploymentMember, Device
from cellfleet.wire.reason import because, read_reason
from cellfleet.wire.rollout import Member

SERVER = "server"
"""The actor of what the rules decide."""
UNDER_WAY = ("offered", "updating", "deferred")


@dataclass
class Membership:
    """The members of a deployment with their devices."""

    pairs: list[tuple[DeploymentMember, Device]]

    @property
    def devices(self) -> dict[str, Device]:
        return {d.id: d for _, d in self.pairs}

    @property
    def members(self) -> dict[str, DeploymentMember]:
        return {d.id: m for m, d in self.pairs}

    def as_seen(self) -> list[Member]:
        """As the rules see them."""
        return [
            Member(
                device_id=d.id,
                name=d.name,
                state=m.state,  # type: ignore[arg-type]
                phase=m.phase,
                offered_at=m.offered_at,
                ended_at=m.ended_at,
                heard_at=d.last_seen_at,
                reason=read_reason(m.reason, m.reason_data),
            )
            for m, d in self.pairs
        ]


def is_activated(update: Mapping[str, Any]) -> bool:
    """An update (as stored) that has switched the device, or is switching it."""
    return has_activated(str(update.get("state", "")))


def read_members(db: Session, deployment_id: int) -> Membership:
    """The members as they are now; nothing is locked."""
    return Membership([(m, device) for m, device in db.execute(_pairs(deployment_id))])


def lock_members(db: Session, d: Deployment) -> Membership:
    """The members, with their devices locked first: what a report wrote while we waited for its device is then seen, too."""
    ids = select(DeploymentMember.device_id).where(DeploymentMember.deployment_id == d.id)
    db.execute(select(Device.id).where(Device.id.in_(ids)).order_by(Device.id).with_for_update()).all()
    query = _pairs(d.id).execution_options(populate_existing=True)
    return Membership([(m, device) for m, device in db.execute(query)])


def _pairs(deployment_id: int) -> Select[DeploymentMember, Device]:
    query = select(DeploymentMember, Device).join(Device, Device.id == DeploymentMember.device_id)
    slim = query.options(defer(Device.reported), defer(Device.facts), defer(Device.public_key))
    return slim.where(DeploymentMember.deployment_id == deployment_id).order_by(Device.id)


def lock_devices(db: Session, group_id: int, but_not: Collection[str] = ()) -> list[Device]:
    """The accepted devices of a group, locked, in the order of their ids.

    Args:
        group_id: the group.
        but_not: ids of devices that are left out.
    """
    query = select(Device).where(Device.group_id == group_id, Device.state == "accepted").order_by(Device.id)
    query = query.options(defer(Device.reported), defer(Device.facts)).execution_options(populate_existing=True)
    return [x for x in db.scalars(query.with_for_update()) if x.id not in but_not]


def join_and_leave(
    db: Session, context: Context, d: Deployment, membership: Membership
) -> tuple[Membership, list[Device]]:
    """Add devices that entered the group; delete members that left it, or the fleet, before they ended.

    Args:
        db, context: transaction and server.
        d: the deployment, locked.
        membership: its members, locked.

    Returns:
        The members now, and the devices that left.
    """
    known = membership.devices
    here = db.scalars(select(Device.id).where(Device.group_id == d.group_id, Device.state == "accepted"))
    new = lock_devices(db, d.group_id, but_not=set(known)) if any(i not in known for i in here) else []
    gone = [
        (m, x)
        for m, x in membership.pairs
        if (x.group_id != d.group_id or x.state != "accepted") and m.state in ("waiting", *UNDER_WAY, "silent")
    ]
    if not new and not gone:
        return membership, []
    for m, _ in gone:
        db.delete(m)
    added = [DeploymentMember(deployment_id=d.id, device_id=x.id, state="waiting", reason="", update={}) for x in new]
    db.add_all(added)
    names = {"joined": sorted(x.name for x in new), "left": sorted(x.name for _, x in gone)}
    reason = because("rollout.members-changed")
    audit.record(db, context, SERVER, "deployment.members-changed", f"deployment:{d.id}", reason, **names)
    db.flush()
    left = {x.id for _, x in gone}
    stay = [(m, x) for m, x in membership.pairs if x.id not in left]
    return Membership([*stay, *zip(added, new, strict=True)]), [x for _, x in gone]
