"""Device groups: devices that are deployed to together."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.refusals import bad_request, conflict, not_found
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import Deployment, Device, DeviceGroup
from cellfleet.wire.base import is_key


def listing(db: Session) -> Sequence[tuple[DeviceGroup, int]]:
    """All groups by name, each with the number of its accepted devices."""
    count = (
        select(func.count()).select_from(Device)
        .where(Device.group_id == DeviceGroup.id, Device.state == "accepted")
        .scalar_subquery()
    )  # fmt: skip
    return [(group, n) for group, n in db.execute(select(DeviceGroup, count).order_by(DeviceGroup.name))]


def find(db: Session, name: str) -> DeviceGroup:
    """Raises:
    RequestRefused: 404.
    """
    group = db.scalars(select(DeviceGroup).where(DeviceGroup.name == name)).one_or_none()
    if group is None:
        raise not_found(f"device group {name}", hint="make it with `cellfleet fleet group add`")
    return group


def members(db: Session, group_id: int) -> Sequence[Device]:
    """Accepted devices of a group, by name."""
    query = select(Device).where(Device.group_id == group_id, Device.state == "accepted").order_by(Device.name)
    return db.scalars(query).all()


def add(db: Session, context: Context, by: Person, name: str, description: str = "") -> DeviceGroup:
    """Make a group.

    Raises:
        RequestRefused: 409 the name is taken; 422 a name that cannot be.
    """
    if not is_key(name):
        raise bad_request("bad-name", "a name has 1 to 128 letters, digits and . _ @ -")
    row = {"name": name, "description": description, "created_at": context.clock.now()}
    if not insert_or_ignore(db, DeviceGroup, [row]):
        raise conflict("name-taken", f"there is a device group {name} already", hint="choose another name")
    audit.record(db, context, by.actor, "group.added", f"group:{name}", description)
    return find(db, name)


def remove(db: Session, context: Context, by: Person, name: str) -> None:
    """Remove a group that has no devices and no deployments.

    Raises:
        RequestRefused: 404; 409 ``not-empty``.
    """
    group = find(db, name)
    for table in (Device, Deployment):
        if db.scalars(select(table.group_id).where(table.group_id == group.id).limit(1)).first() is not None:
            raise conflict("not-empty", f"{name} still has {table.__tablename__}", hint="move its devices first")
    try:
        db.delete(group)
        db.flush()
    except IntegrityError:
        raise conflict("not-empty", f"{name} got a device at this moment", hint="look, and repeat it") from None
    audit.record(db, context, by.actor, "group.removed", f"group:{name}")
