"""Alarms of an instrument: what the server found wrong with its key, its clock or its reports.

They are stored with the instrument, code -> text. Each begins and ends with an audit event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.provisioning import devices
from cellfleet.fleet.store.models import Device

KEY_REUSED = "key-reused"
"""Another claim came with this instrument's key."""
TWO_MACHINES = "two-machines"
"""Reports of two machines come with one key, or an old copy of the disk was restored."""
COUNTERS = "counters-back"
"""A counter of frames is lower than it was."""
CLOCK = "clock"
"""Its clock is far off, or times of its telemetry cannot be true."""
ACTIVE = "active-not-offered"
"""It runs a bundle that this server never offered it."""
UPDATE = "update-not-offered"
"""It reports an update that this server never offered it, or that cannot be true."""


def note(db: Session, context: Context, device: Device, raised: Mapping[str, str], ended: Collection[str] = ()) -> None:
    """Raise and end alarms of a device; an alarm that is there already gets the newer text and no second event.

    Args:
        db, context: transaction and server.
        device: the device, whose row the caller holds.
        raised: code -> text.
        ended: codes of alarms that are over.
    """
    alarms = {code: text for code, text in device.alarms.items() if code not in ended}
    for code, text in raised.items():
        if code not in alarms:
            audit.record(db, context, "server", "device.alarm", f"device:{device.id}", text, alarm=code)
        alarms[code] = text
    for code in device.alarms.keys() - alarms.keys():
        audit.record(db, context, "server", "device.alarm-over", f"device:{device.id}", device.alarms[code], alarm=code)
    if alarms != device.alarms:
        device.alarms = alarms


def raise_alarm(db: Session, context: Context, device_id: str, code: str, text: str) -> None:
    """Raise an alarm of a device; its row is held from here on.

    Args:
        db, context: transaction and server.
        device_id: the device, which exists.
        code: one of this module's.
        text: what was found, for people.
    """
    device = db.scalars(select(Device).where(Device.id == device_id).with_for_update()).one()
    note(db, context, device, {code: text})


def clear(db: Session, context: Context, person: Person, device_ref: str, reason: str) -> None:
    """An operator has seen the alarms of a device; all of them end.

    After ``two-machines`` the next report is accepted, whatever its sequence: a disk that was restored from a backup goes
    on; of two machines that still run, one raises the alarm again.

    Args:
        db, context: transaction and server.
        person: who asks; an operator.
        device_ref: id or name.
        reason: for the audit.

    Raises:
        RequestRefused: 403, 404.
    """
    person.need("operator")
    device = devices.find(db, device_ref, lock=True)
    if not device.alarms:
        return
    subject, alarms = f"device:{device.id}", dict(device.alarms)
    audit.record(db, context, person.actor, "device.alarms-cleared", subject, reason, alarms=alarms)
    if TWO_MACHINES in device.alarms:
        device.reported_sequence, device.boot_id = -1, ""
    device.alarms = {}
