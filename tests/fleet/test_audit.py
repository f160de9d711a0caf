"""The chain of audit events holds under concurrent writers, and shows whoever tampers with it by SQL."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from cellfleet.canonical import digest_of
from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import AuditEvent


def note(context: Context, count: int, word: str = "thing") -> None:
    for i in range(count):
        with context.sessions() as db:
            audit.record(db, context, "person:anna", f"{word}.done", f"{word}:{i}", "because", number=i, name="é\u4e2d")


def verified(context: Context) -> audit.Verified:
    with context.reading() as db:
        return audit.verify(db)


def without_triggers(context: Context, *statements: str) -> None:
    """What an attacker who owns the database can do."""
    with context.database.engine.begin() as connection:
        if context.database.is_sqlite:
            for word in ("UPDATE", "DELETE"):
                connection.execute(text(f"DROP TRIGGER audit_events_no_{word}"))
        else:
            connection.execute(text("ALTER TABLE audit_events DISABLE TRIGGER ALL"))
        for statement in statements:
            connection.execute(text(statement))


def test_an_empty_chain_and_a_whole_one(context: Context) -> None:
    assert verified(context) == audit.Verified(0, None, audit.FIRST)
    note(context, 3)
    found = verified(context)
    assert (found.count, found.broken_at) == (3, None)
    assert found.head != audit.FIRST


def test_nothing_is_noted_when_the_transaction_fails(context: Context) -> None:
    def fail() -> None:
        with context.sessions() as db:
            audit.record(db, context, "server", "thing.done", "thing:1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert verified(context).count == 0


def test_a_session_that_is_used_again_after_a_rollback(context: Context) -> None:
    with context.sessions() as db:
        audit.record(db, context, "server", "thing.lost", "thing:1")
        db.rollback()
        audit.record(db, context, "server", "thing.kept", "thing:2")
    with context.reading() as db:
        assert [e.action for e in audit.listing(db)] == ["thing.kept"]


def test_eight_writers_in_two_replicas(context: Context, reopen: Callable[[], Context]) -> None:
    other = reopen()
    threads = [threading.Thread(target=note, args=((context, other)[n % 2], 10, f"writer-{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verified(context).count == 80
    assert verified(context).broken_at is None


@pytest.mark.parametrize(
    ("statement", "broken_at", "why"),
    [
        ("UPDATE audit_events SET reason = 'another' WHERE seq = 4", 4, "changed"),
        ("UPDATE audit_events SET actor = 'person:ben' WHERE seq = 1", 1, "changed"),
        ("DELETE FROM audit_events WHERE seq = 4", 4, "missing"),
        ("DELETE FROM audit_events WHERE seq = 1", 1, "missing"),
        ("DELETE FROM audit_events WHERE seq > 5", 6, "missing"),
        ("UPDATE audit_events SET seq = seq + 100 WHERE seq = 6", 6, "missing"),
        (
            "INSERT INTO audit_events (seq, at, actor, action, subject, reason, detail, previous, hash) "
            "SELECT 7, at, 'person:eve', action, subject, reason, detail, hash, 'f' || substr(hash, 2) "
            "FROM audit_events WHERE seq = 6",
            7,
            "changed",
        ),
    ],
)
def test_tampering_shows(context: Context, statement: str, broken_at: int, why: str) -> None:
    note(context, 6)
    without_triggers(context, statement)
    found = verified(context)
    assert found.broken_at == broken_at
    assert why in found.why
    assert found.count == broken_at - 1


def rewrite(context: Context, seq: int, reason: str, previous: str = "") -> str:
    """Change an event and give it the hash that fits it, as somebody who knows the format would; the new hash."""
    with context.reading() as db:
        row = db.scalars(select(AuditEvent).where(AuditEvent.seq == seq)).one()
        content = {
            "format_version": 1, "seq": row.seq, "at": row.at.isoformat(timespec="microseconds"), "actor": row.actor,
            "action": row.action, "subject": row.subject, "reason": reason, "detail": row.detail,
            "previous": previous or row.previous,
        }  # fmt: skip
    digest = digest_of(content)
    with context.database.engine.begin() as connection:
        values = {"reason": reason, "previous": content["previous"], "hash": digest, "seq": seq}
        change = "UPDATE audit_events SET reason = :reason, previous = :previous, hash = :hash WHERE seq = :seq"
        connection.execute(text(change), values)
    return digest


def test_the_hash_of_an_event_is_over_what_the_api_says(context: Context) -> None:
    note(context, 3)
    without_triggers(context)
    before = verified(context).head
    assert rewrite(context, 3, "because") == before


def test_a_changed_event_with_a_hash_that_fits_shows_at_the_next_one(context: Context) -> None:
    note(context, 6)
    without_triggers(context)
    rewrite(context, 3, "another reason")
    found = verified(context)
    assert (found.broken_at, found.count) == (4, 3)
    assert "does not follow" in found.why


def test_a_link_that_was_patched_to_fit_shows(context: Context) -> None:
    note(context, 6)
    without_triggers(context)
    digest = rewrite(context, 3, "another reason")
    with context.database.engine.begin() as connection:
        connection.execute(text("UPDATE audit_events SET previous = :hash WHERE seq = 4"), {"hash": digest})
    found = verified(context)
    assert (found.broken_at, found.count) == (4, 3)
    assert "was changed" in found.why


def test_a_chain_that_was_rewritten_to_its_end_shows_by_its_head(context: Context) -> None:
    note(context, 6)
    kept = verified(context).head
    without_triggers(context)
    digest = rewrite(context, 3, "another reason")
    for seq in (4, 5, 6):
        digest = rewrite(context, seq, "because", digest)
    assert verified(context).broken_at == 7
    with context.database.engine.begin() as connection:
        connection.execute(text("UPDATE audit_head SET hash = :hash"), {"hash": digest})
    assert verified(context).broken_at is None, "whoever owns the database can do that"
    with context.reading() as db:
        assert audit.verify(db, kept).broken_at == 7, "and a head that was kept elsewhere shows it"


def test_an_end_that_was_cut_off_with_its_note_shows(context: Context) -> None:
    note(context, 6)
    without_triggers(context, "DELETE FROM audit_events WHERE seq > 5", "DELETE FROM audit_head")
    assert verified(context).broken_at == 6


def test_a_kept_head_shows_that_everything_is_gone(context: Context) -> None:
    note(context, 6)
    kept = verified(context).head
    without_triggers(context, "DELETE FROM audit_events", "DELETE FROM audit_head")
    with context.reading() as db:
        found = audit.verify(db, kept)
    assert found.broken_at == 1
    assert kept in found.why


def test_a_kept_head_is_in_the_chain_for_ever(context: Context) -> None:
    assert verified(context).head == audit.FIRST
    note(context, 3)
    kept = verified(context).head
    note(context, 2)
    with context.reading() as db:
        assert [audit.verify(db, head).broken_at for head in (audit.FIRST, kept, "", "f" * 64)] == [None, None, None, 6]


def test_a_row_put_in_between_shows(context: Context) -> None:
    note(context, 4)
    without_triggers(
        context,
        "UPDATE audit_events SET seq = 5 WHERE seq = 4",
        "UPDATE audit_events SET seq = 4 WHERE seq = 3",
        "INSERT INTO audit_events (seq, at, actor, action, subject, reason, detail, previous, hash) "
        "SELECT 3, at, actor, action, 'thing:99', reason, detail, hash, substr(hash, 2) || '0' "
        "FROM audit_events WHERE seq = 2",
    )
    assert verified(context).broken_at == 3


@pytest.mark.parametrize("statement", ["UPDATE audit_events SET reason = 'x'", "DELETE FROM audit_events"])
def test_the_database_itself_refuses(context: Context, statement: str) -> None:
    note(context, 2)
    with pytest.raises(SQLAlchemyError, match="append-only"), context.sessions() as db:
        db.execute(text(statement))
    assert verified(context).count == 2


def test_long_chains_are_read_in_portions(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BATCH", 3)
    note(context, 7)
    assert verified(context).count == 7
    without_triggers(context, "UPDATE audit_events SET reason = 'x' WHERE seq = 7")
    assert verified(context).broken_at == 7
