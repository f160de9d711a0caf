"""Alarms of an instrument: what the server found wrong with its key, its clock or its reports.

They are stored with the instrument, as English texts and as data. Each begins and ends with an audit event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.provisioning import devices
from cellfleet.fleet.store.models import Device
from cellfleet.wire.reason import Reason, english, read_reason

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


def alarms_of(texts: Mapping[str, Any], data: Mapping[str, Any] | None) -> dict[str, Reason]:
    """The alarms of a device, code -> reason.

    Args:
        texts: code -> English text, as stored.
        data: code -> reason as data, as stored; an alarm of an earlier version has none.
    """
    found = {code: read_reason(str(text), (data or {}).get(code)) for code, text in texts.items()}
    return {code: reason for code, reason in found.items() if reason is not None}


def note(
    db: Session, context: Context, device: Device, raised: Mapping[str, Reason], ended: Collection[str] = ()
) -> None:
    """Raise and end alarms of a device; an alarm that is there already gets the newer reason and no second event.

    Args:
        db, context: transaction and server.
        device: the device, whose row the caller holds.
        raised: code -> reason.
        ended: codes of alarms that are over.
    """
    subject, before = f"device:{device.id}", alarms_of(device.alarms, device.alarms_data)
    alarms = {code: reason for code, reason in before.items() if code not in ended}
    for code, reason in raised.items():
        if code not in alarms:
            audit.record(db, context, "server", "device.alarm", subject, reason, alarm=code)
        alarms[code] = reason
    for code in before.keys() - alarms.keys():
        audit.record(db, context, "server", "device.alarm-over", subject, before[code], alarm=code)
    if alarms != before:
        device.alarms = {code: english(reason) for code, reason in alarms.items()}
        device.alarms_data = {code: reason.model_dump(mode="json") for code, reason in alarms.items()}


def raise_alarm(db: Session, context: Context, device_id: str, code: str, reason: Reason) -> None:
    """Raise an alarm of a device; its row is held from here on.

    Args:
        db, context: transaction and server.
        device_id: the device, which exists.
        code: one of this module's.
        reason: what was found.
    """
    device = db.scalars(select(Device).where(Device.id == device_id).with_for_update()).one()
    note(db, context, device, {code: reason})


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
    device.alarms, device.alarms_data = {}, None
