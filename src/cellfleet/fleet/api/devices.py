"""Instruments: who they are, what they run, their groups and tags."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from cellfleet.fleet.api.dependencies import Ctx, Db, DeviceRef, InPortions, Listing, Operator, RequiredReason, Viewer
from cellfleet.fleet.context import Context
from cellfleet.fleet.provisioning import devices
from cellfleet.fleet.provisioning.alarms import alarms_of
from cellfleet.fleet.store.models import Device
from cellfleet.wire import Message
from cellfleet.wire.base import Key, Text, Time
from cellfleet.wire.enrol import DeviceState
from cellfleet.wire.reason import Reason

router = APIRouter(prefix="/api/v1/devices", tags=["devices"])


class DeviceAnswer(Message):
    """An instrument.

    Attributes:
        silent: it is a member and has not reported within the limit.
        active: what it runs, as it reported (SlotReport); None: nothing, or no report yet.
        alarms, alarms_data: what the server found wrong with it, name -> English text and name -> data.
        desired: what it is to run (DesiredState); empty: no deployment yet.
        reported: its latest ReportedState; empty: none yet.
    """

    id: str = Field(examples=["dev-0123456789ab"])
    name: str = Field(examples=["XYZ-007"])
    state: str = Field(examples=["accepted"])
    group: str | None = Field(default=None, examples=["pilot"])
    tags: tuple[str, ...] = Field(default=(), examples=[["basel"]])
    created_at: Time
    decided_by: str | None = Field(default=None, examples=["anna"])
    decided_at: Time | None = None
    last_seen_at: Time | None = None
    silent: bool = False
    active: dict[str, Any] | None = None
    alarms: dict[str, str] = Field(default={}, examples=[{}])
    alarms_data: dict[str, Reason] = Field(default={}, examples=[{}])
    facts: dict[str, Any] = Field(default={}, examples=[{}])
    desired: dict[str, Any] = Field(default={}, examples=[{}])
    reported: dict[str, Any] = Field(default={}, examples=[{}])


class Acceptance(Message):
    """The group of the device, and the reason."""

    group: Key | None = Field(default=None, examples=["pilot"])
    reason: Text = Field(default="", examples=["checked its label on the phone"])


class GroupChoice(Message):
    """The group; null: none."""

    group: Key | None = Field(examples=["pilot"])


class Tags(Message):
    """All tags; they replace the previous tags."""

    tags: tuple[Key, ...] = Field(max_length=32, examples=[["basel", "incubator"]])


@router.get("", summary="List devices", description="By name; `after` is a name.")
def list_devices(
    context: Ctx,
    db: Db,
    _by: Viewer,
    portion: InPortions,
    state: Annotated[DeviceState | None, Query(description="Only these.", examples=["pending"])] = None,
    group: Annotated[str, Query(max_length=128, description="Only those of this group.", examples=[""])] = "",
    tag: Annotated[str, Query(max_length=128, description="Only those with this tag.", examples=[""])] = "",
) -> Listing[DeviceAnswer]:
    found = devices.listing(db, state=state or "", group=group, tag=tag, after=portion.after, limit=portion.limit)
    more = found[-1][0].name if len(found) == portion.limit else ""
    return Listing[DeviceAnswer](items=tuple(_answer(context, d, name) for d, name in found), next=more)


@router.get("/{ref}", summary="Show a device", description="By id or name.")
def show_device(context: Ctx, db: Db, _by: Viewer, ref: DeviceRef) -> DeviceAnswer:
    device = devices.find(db, ref)
    return _answer(context, device, devices.group_of(db, device))


@router.post(
    "/{ref}/accept",
    summary="Accept a device",
    description="A pending device becomes a member of the fleet, and of a group when one is named.",
)
def accept(context: Ctx, db: Db, by: Operator, ref: DeviceRef, body: Acceptance) -> DeviceAnswer:
    device = devices.accept(db, context, by, ref, group=body.group, reason=body.reason)
    return _answer(context, device, devices.group_of(db, device))


@router.post(
    "/{ref}/reject", summary="Reject a device", description="A pending device is rejected; its key becomes invalid."
)
def reject(context: Ctx, db: Db, by: Operator, ref: DeviceRef, body: RequiredReason) -> DeviceAnswer:
    device = devices.reject(db, context, by, ref, body.reason)
    return _answer(context, device, devices.group_of(db, device))


@router.post(
    "/{ref}/revoke",
    summary="Revoke a device",
    description="It is no longer a member; its tokens become invalid at once.",
)
def revoke(context: Ctx, db: Db, by: Operator, ref: DeviceRef, body: RequiredReason) -> DeviceAnswer:
    device = devices.revoke(db, context, by, ref, body.reason)
    return _answer(context, device, devices.group_of(db, device))


@router.put(
    "/{ref}/group", summary="Set the group of a device", description="Null for no group; it leaves its previous group."
)
def move(context: Ctx, db: Db, by: Operator, ref: DeviceRef, body: GroupChoice) -> DeviceAnswer:
    device = devices.move(db, context, by, ref, body.group)
    return _answer(context, device, devices.group_of(db, device))


@router.put("/{ref}/tags", summary="Tag a device", description="All tags at once; they replace the previous tags.")
def tag(context: Ctx, db: Db, by: Operator, ref: DeviceRef, body: Tags) -> DeviceAnswer:
    device = devices.tag(db, context, by, ref, body.tags)
    return _answer(context, device, devices.group_of(db, device))


def _answer(context: Context, device: Device, group: str | None) -> DeviceAnswer:
    return DeviceAnswer(
        id=device.id,
        name=device.name,
        state=device.state,
        group=group,
        tags=tuple(device.tags),
        created_at=device.created_at,
        decided_by=device.decided_by,
        decided_at=device.decided_at,
        last_seen_at=device.last_seen_at,
        silent=devices.is_silent(context, device),
        active=(device.reported or {}).get("active"),
        alarms=device.alarms,
        alarms_data=alarms_of(device.alarms, device.alarms_data),
        facts=device.facts,
        desired=device.desired,
        reported=device.reported,
    )
