"""Instruments as the fleet knows them: accepting, rejecting, revoking, groups and tags. Every change is an audit event."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.provisioning import groups
from cellfleet.fleet.refusals import bad_request, conflict, not_found
from cellfleet.fleet.store.models import Device, DeviceGroup, DeviceToken
from cellfleet.wire.base import is_device_id, is_key

MOST_TAGS = 32


def find(db: Session, ref: str, *, lock: bool = False) -> Device:
    """A device by its id, else by its name (an old device may have a name that looks like another's id).

    Args:
        ref: id or name.
        lock: its row is held by this transaction.

    Raises:
        RequestRefused: 404.
    """
    query = select(Device).with_for_update() if lock else select(Device)
    device = db.scalars(query.where(Device.id == ref)).one_or_none() if is_device_id(ref) else None
    if device is None:
        device = db.scalars(query.where(Device.name == ref)).one_or_none()
    if device is None:
        raise not_found(f"instrument {ref[:64]}")
    return device


def listing(
    db: Session, *, state: str = "", group: str = "", tag: str = "", after: str = "", limit: int = 100
) -> Sequence[tuple[Device, str | None]]:
    """Devices by name, each with the name of its group.

    Args:
        state, group, tag: only those.
        after: only those whose names come later.

    Raises:
        RequestRefused: 404 unknown group.
    """
    query = select(Device, DeviceGroup.name).join(DeviceGroup, DeviceGroup.id == Device.group_id, isouter=True)
    query = query.where(Device.name > after).order_by(Device.name)
    if state:
        query = query.where(Device.state == state)
    if group:
        query = query.where(Device.group_id == groups.find(db, group).id)
    if not tag:
        return [(device, name) for device, name in db.execute(query.limit(limit))]
    found = ((device, name) for device, name in db.execute(query) if tag in device.tags)
    return [pair for pair, _ in zip(found, range(limit), strict=False)]


def group_of(db: Session, device: Device) -> str | None:
    """Name of the device's group."""
    return None if device.group_id is None else db.scalars(
        select(DeviceGroup.name).where(DeviceGroup.id == device.group_id)
    ).one()  # fmt: skip


def is_silent(context: Context, device: Device) -> bool:
    """A member without contact for longer than ``fleet.silent_after_s``."""
    if device.state != "accepted":
        return False
    heard = device.last_seen_at or device.decided_at or device.created_at
    return (context.clock.now() - heard).total_seconds() > context.settings.silent_after_s


def accept(
    db: Session, context: Context, by: Person, ref: str, *, group: str | None = None, reason: str = ""
) -> Device:
    """A pending device becomes a member of the fleet, and of a group when one is named. An accepted one stays as it is.

    Raises:
        RequestRefused: 403 role; 404; 409 it was rejected or revoked.
    """
    by.need("operator")
    device = find(db, ref, lock=True)
    if device.state not in ("pending", "accepted"):
        raise conflict(
            device.state, f"{device.name} was {device.state}", hint="provision it again with a new key and claim token"
        )
    if group is not None:
        _move(db, context, by, device, group)
    if device.state == "pending":
        _decide(context, by, device, "accepted")
        audit.record(db, context, by.actor, "device.accepted", f"device:{device.id}", reason, name=device.name)
    return device


def reject(db: Session, context: Context, by: Person, ref: str, reason: str) -> Device:
    """A pending device is not taken into the fleet; its key counts no more.

    Raises:
        RequestRefused: 403 role; 404; 409 it is not pending.
    """
    by.need("operator")
    device = find(db, ref, lock=True)
    if device.state == "rejected":
        return device
    if device.state != "pending":
        raise conflict(device.state, f"{device.name} is {device.state}, not pending", hint="revoke it instead")
    _decide(context, by, device, "rejected")
    audit.record(db, context, by.actor, "device.rejected", f"device:{device.id}", reason, name=device.name)
    return device


def revoke(db: Session, context: Context, by: Person, ref: str, reason: str) -> Device:
    """Revoke a device: it leaves the fleet; its key and its tokens become invalid at once.

    Raises:
        RequestRefused: 403 role; 404; 409 it is not a member.
    """
    by.need("operator")
    device = find(db, ref, lock=True)
    if device.state == "revoked":
        return device
    if device.state != "accepted":
        raise conflict(device.state, f"{device.name} is {device.state}, not accepted", hint="reject it instead")
    _decide(context, by, device, "revoked")
    device.group_id = None
    db.execute(delete(DeviceToken).where(DeviceToken.device_id == device.id))
    audit.record(db, context, by.actor, "device.revoked", f"device:{device.id}", reason, name=device.name)
    return device


def move(db: Session, context: Context, by: Person, ref: str, group: str | None) -> Device:
    """Put a device into a group, or into none.

    Raises:
        RequestRefused: 403 role; 404 device or group; 409 it is not a member.
    """
    by.need("operator")
    device = find(db, ref, lock=True)
    if device.state not in ("pending", "accepted"):
        raise conflict(device.state, f"{device.name} is {device.state}")
    _move(db, context, by, device, group)
    return device


def tag(db: Session, context: Context, by: Person, ref: str, tags: Sequence[str]) -> Device:
    """Replace a device's tags.

    Raises:
        RequestRefused: 403 role; 404; 422 a tag that cannot be.
    """
    by.need("operator")
    device = find(db, ref, lock=True)
    wanted = sorted(set(tags))
    if len(wanted) > MOST_TAGS or not all(is_key(t) for t in wanted):
        raise bad_request("bad-tag", f"at most {MOST_TAGS} tags, each of letters, digits and . _ @ -")
    if wanted != device.tags:
        audit.record(
            db, context, by.actor, "device.tagged", f"device:{device.id}", tags=wanted, before=list(device.tags)
        )
        device.tags = list(wanted)
    return device


def _decide(context: Context, by: Person, device: Device, state: str) -> None:
    device.state, device.decided_by, device.decided_at = state, by.name, context.clock.now()


def _move(db: Session, context: Context, by: Person, device: Device, group: str | None) -> None:
    before = group_of(db, device)
    if before == group:
        return
    device.group_id = None if group is None else groups.find(db, group).id
    audit.record(
        db, context, by.actor, "device.moved", f"device:{device.id}", name=device.name, group=group, before=before
    )
