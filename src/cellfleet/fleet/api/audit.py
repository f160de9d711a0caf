"""Who did what, when and why."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from cellfleet.fleet import audit
from cellfleet.fleet.api.dependencies import Db, InPortions, Listing, Viewer
from cellfleet.wire import Message
from cellfleet.wire.base import Time

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])
_Start = Annotated[str, Query(max_length=200, description="Only values that start with this text.", examples=[""])]

_Head = Annotated[
    str,
    Query(
        pattern="^([0-9a-f]{64})?$",
        description="Head of an earlier verification; the chain must contain it.",
        examples=["6aec7e73a2cb9e9e12e20b768bcf277b7d23f266fdf5592315d59c4a35f9c6ac"],
    ),
]


class AuditAnswer(Message):
    """An event. ``hash`` covers the event and ``previous``, the hash of the event before."""

    seq: int = Field(examples=[17])
    at: Time
    actor: str = Field(examples=["person:anna"])
    action: str = Field(examples=["device.accepted"])
    subject: str = Field(examples=["device:dev-0123456789ab"])
    reason: str = Field(examples=["checked its label on the phone"])
    detail: dict[str, Any] = Field(examples=[{"group": "pilot"}])
    previous: str = Field(examples=["89bb3d20464c3e5f0124104cf106d160e9c3f20e3be1d81d9776768c606d72f1"])
    hash: str = Field(examples=["6aec7e73a2cb9e9e12e20b768bcf277b7d23f266fdf5592315d59c4a35f9c6ac"])


class Verification(Message):
    """Whether the chain is intact. ``head``: hash of the last valid event; a copy elsewhere proves the end of the chain."""

    whole: bool
    count: int = Field(examples=[1234])
    broken_at: int | None = None
    head: str = Field(examples=["6aec7e73a2cb9e9e12e20b768bcf277b7d23f266fdf5592315d59c4a35f9c6ac"])
    why: str = Field(default="", examples=[""])


@router.get(
    "", summary="List events", description="Newest first. `after` is the number of an event: only older events."
)
def list_events(
    db: Db, _by: Viewer, portion: InPortions, actor: _Start = "", action: _Start = "", subject: _Start = ""
) -> Listing[AuditAnswer]:
    rows = audit.listing(
        db, before=portion.after_id or None, limit=portion.limit, actor=actor, action=action, subject=subject
    )
    names = tuple(AuditAnswer.model_fields)
    items = tuple(AuditAnswer(**{name: getattr(row, name) for name in names}) for row in rows)
    return Listing[AuditAnswer](items=items, next=str(rows[-1].seq) if len(rows) == portion.limit else "")


@router.get(
    "/verify",
    summary="Verify the chain",
    description="Reads all events and verifies that none was changed, removed or inserted.",
)
def verify(db: Db, _by: Viewer, head: _Head = "") -> Verification:
    found = audit.verify(db, head)
    return Verification(
        whole=found.broken_at is None, count=found.count, broken_at=found.broken_at, head=found.head, why=found.why
    )
