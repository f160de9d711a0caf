"""Audit events: who, what, when, why. Append-only and hash-chained, so that a change, a hole or an insertion shows.

``hash`` is the digest of the canonical JSON of the row with ``previous``, the hash of the row before it. Rows get their
numbers just before the transaction commits, one transaction at a time, so the lock is held only briefly.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.canonical import digest_of
from cellfleet.fleet.context import Context
from cellfleet.fleet.store.database import at_commit, insert_or_ignore
from cellfleet.fleet.store.models import AuditEvent, AuditHead
from cellfleet.wire.reason import Reason, text_and_data

FIRST = "0" * 64
"""``previous`` of the first event."""
BATCH = 1000


@dataclass(frozen=True)
class Verified:
    """What checking the chain found.

    Attributes:
        count: events that hold.
        broken_at: number of the first event that does not; None: all do.
        head: hash of the last event that holds. A copy kept elsewhere later proves that no end was cut off.
        why: in words.
    """

    count: int
    broken_at: int | None = None
    head: str = FIRST
    why: str = ""


def record(
    db: Session, context: Context, actor: str, action: str, subject: str, reason: str | Reason = "", **detail: Any
) -> None:
    """Note an event; it is written with this session's transaction or not at all. Not within a savepoint.

    Args:
        actor: ``person:<name>``, ``device:<id>`` or ``server``.
        action: ``<thing>.<what happened>``, such as ``device.accepted``.
        subject: ``<thing>:<id or name>``, such as ``device:dev-0123456789ab``.
        reason: the text of an operator, or a reason; its data is kept in ``detail`` as ``reason_data``.
        detail: plain JSON data.
    """
    if isinstance(reason, Reason):
        reason, detail["reason_data"] = text_and_data(reason)
    event = {
        "at": context.clock.now(),
        "actor": actor[:80],
        "action": action[:64],
        "subject": subject[:200],
        "reason": reason,
        "detail": json.loads(json.dumps(detail, allow_nan=False)),
    }
    at_commit(db, functools.partial(_append, event))


def _append(event: dict[str, Any], db: Session) -> None:
    head = _locked_head(db)
    row = AuditEvent(seq=head.seq + 1, previous=head.hash, **event)
    row.hash = _hash(row)
    head.seq, head.hash = row.seq, row.hash
    db.add(row)
    db.flush()


def _locked_head(db: Session) -> AuditHead:
    """The end of the chain, held by this transaction until it ends (SQLite has one writer anyway)."""
    insert_or_ignore(db, AuditHead, [{"id": 1, "seq": 0, "hash": FIRST}])
    query = select(AuditHead).where(AuditHead.id == 1).with_for_update().execution_options(populate_existing=True)
    return db.scalars(query).one()


def _hash(row: AuditEvent) -> str:
    content = {
        "format_version": 1,
        "seq": row.seq,
        "at": _iso(row.at),
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "reason": row.reason,
        "detail": row.detail,
        "previous": row.previous,
    }
    return digest_of(content)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def verify(db: Session, kept_head: str = "") -> Verified:
    """Check the whole chain; events are read in portions.

    Args:
        kept_head: head of an earlier check, kept elsewhere; it must be in the chain. Without one nothing shows that the
            end was cut off together with the note of where it was.
    """
    count, previous, known = 0, FIRST, kept_head in ("", FIRST)
    while rows := _after(db, count):
        for row in rows:
            why = _fault(row, count + 1, previous)
            if why:
                return Verified(count, count + 1, previous, why)
            count, previous, known = count + 1, row.hash, known or row.hash == kept_head
        db.expunge_all()
    end = db.get(AuditHead, 1)
    if (end.seq, end.hash) != (count, previous) if end is not None else count > 0:
        return Verified(count, count + 1, previous, f"event {count + 1} and later ones are missing")
    if not known:
        return Verified(count, count + 1, previous, f"no event has the kept head {kept_head}")
    return Verified(count, None, previous)


def _fault(row: AuditEvent, expected: int, previous: str) -> str:
    if row.seq != expected:
        return f"event {expected} is missing"
    if row.previous != previous:
        return f"event {row.seq} does not follow the event before it"
    return "" if row.hash == _hash(row) else f"event {row.seq} was changed"


def _after(db: Session, seq: int) -> Sequence[AuditEvent]:
    return db.scalars(select(AuditEvent).where(AuditEvent.seq > seq).order_by(AuditEvent.seq).limit(BATCH)).all()


def listing(
    db: Session, *, before: int | None = None, limit: int = 100, actor: str = "", action: str = "", subject: str = ""
) -> Sequence[AuditEvent]:
    """Events, newest first.

    Args:
        before: only those with a lower number.
        actor, action, subject: only those that begin with this.
    """
    query = select(AuditEvent).order_by(AuditEvent.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditEvent.seq < before)
    for column, start in ((AuditEvent.actor, actor), (AuditEvent.action, action), (AuditEvent.subject, subject)):
        if start:
            query = query.where(column.startswith(start, autoescape=True))
    return db.scalars(query).all()
