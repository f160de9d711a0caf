"""Device groups."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from cellfleet.fleet.api.dependencies import Ctx, Db, KeyPath, Listing, Operator, Viewer
from cellfleet.fleet.provisioning import groups
from cellfleet.wire import Message
from cellfleet.wire.base import Key, Time

router = APIRouter(prefix="/api/v1/groups", tags=["groups"])


class GroupRequest(Message):
    """A new group."""

    name: Key = Field(examples=["pilot"])
    description: str = Field(default="", max_length=500, examples=["two instruments near us"])


class GroupAnswer(Message):
    """A group; ``devices``: number of its accepted devices."""

    name: str = Field(examples=["pilot"])
    description: str = Field(examples=["two instruments near us"])
    devices: int = Field(examples=[2])
    created_at: Time


@router.get("", summary="List groups", description="By name, each with the number of its accepted devices.")
def list_groups(db: Db, _by: Viewer) -> Listing[GroupAnswer]:
    items = (
        GroupAnswer(name=g.name, description=g.description, devices=n, created_at=g.created_at)
        for g, n in groups.listing(db)
    )
    return Listing[GroupAnswer](items=tuple(items))


@router.post("", status_code=201, summary="Add a group", description="Devices join a group when they are accepted.")
def add_group(context: Ctx, db: Db, by: Operator, body: GroupRequest) -> GroupAnswer:
    group = groups.add(db, context, by, body.name, body.description)
    return GroupAnswer(name=group.name, description=group.description, devices=0, created_at=group.created_at)


@router.delete(
    "/{name}", status_code=204, summary="Remove a group", description="Only a group without devices and deployments."
)
def remove_group(context: Ctx, db: Db, by: Operator, name: KeyPath) -> None:
    groups.remove(db, context, by, name)
