"""What the pages show of the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.fleet.store.models import AuditEvent


def of_subject(db: Session, subject: str, limit: int = 30) -> Sequence[AuditEvent]:
    """Events of one thing, newest first."""
    of = select(AuditEvent).where(AuditEvent.subject == subject)
    return db.scalars(of.order_by(AuditEvent.seq.desc()).limit(limit)).all()


def address_of(subject: str) -> str:
    """The page of an event's subject; empty when there is none."""
    kind, _, name = subject.partition(":")
    if kind in ("deployment", "release") and name.isascii() and name.isdigit():
        return f"/{kind}s/{name}"
    if kind == "device" and name:
        return f"/devices/{quote(name, safe='')}"
    return ""
