"""Migrations and tables agree on both databases; sessions commit whole or not at all; writers wait for each other."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cellfleet.config.fleet import FleetSection
from cellfleet.config.project import Project, Settings
from cellfleet.errors import ConfigError, StorageError
from cellfleet.fleet.context import Context, open_context
from cellfleet.fleet.provisioning.alarms import alarms_of
from cellfleet.fleet.store import database
from cellfleet.fleet.store.database import Database, alembic_config, insert_or_ignore
from cellfleet.fleet.store.models import Base, Device, DeviceGroup, Lease
from cellfleet.wire.reason import text_reason

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def test_migrations_and_tables_agree(context: Context) -> None:
    with context.database.engine.connect() as connection:
        migration = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(migration, Base.metadata) == []


def test_upgrading_again_changes_nothing(context: Context) -> None:
    add(context, "kept")
    context.database.upgrade()
    with context.reading() as db:
        assert db.query(DeviceGroup).count() == 1


def test_a_commit_waits_for_the_disk(tmp_path: Path, synchronous: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is shipped: an instrument forgets what the server has confirmed, so a power cut must not take it back."""
    monkeypatch.setattr(database, "SYNCHRONOUS", synchronous)
    opened = Database("sqlite:///fleet.db", tmp_path)
    with opened.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    opened.close()


def test_replicas_upgrade_one_after_the_other(tmp_path: Path) -> None:
    settings = Settings(fleet=FleetSection(database="sqlite:///new.db"))
    errors: list[BaseException] = []

    def start() -> None:
        try:
            open_context(Project(root=tmp_path, settings=settings, found=True)).close()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_rows_of_an_earlier_version_have_texts_without_data(tmp_path: Path) -> None:
    made = Database("sqlite:///old.db", tmp_path)
    facts = {"id": "dev-0123456789ab", "name": "XYZ-001", "public_key": "k", "key_sha256": "d", "state": "accepted"}
    old = {**facts, "created_at": datetime(2026, 3, 2, tzinfo=UTC), "alarms": {"clock": "its clock is 48 h ahead"}}
    with made.engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0002")
        connection.execute(insert(Device).values(old))
    made.upgrade()
    with Session(made.engine) as db:
        device = db.get_one(Device, facts["id"])
        assert device.alarms_data is None
        assert alarms_of(device.alarms, device.alarms_data) == {"clock": text_reason("its clock is 48 h ahead")}
    made.close()


def test_a_database_of_a_newer_program(context: Context) -> None:
    with context.sessions() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match="9999") as error:
        context.database.upgrade()
    assert "newer" in error.value.hint


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg"]
)
def test_a_url_that_cannot_be(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.database"):
        Database(url, tmp_path)


def test_a_server_that_is_away(tmp_path: Path) -> None:
    database = Database("postgresql://user:geheim@127.0.0.1:1/fleet", tmp_path)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1") as error:
        database.upgrade()
    assert "geheim" not in error.value.message
    database.close()


def add(context: Context, name: str) -> int:
    with context.sessions() as db:
        return insert_or_ignore(db, DeviceGroup, [{"name": name, "created_at": NOW}])


def test_insert_or_ignore(context: Context) -> None:
    assert add(context, "a") == 1
    assert add(context, "a") == 0
    rows = [{"name": f"g-{i}", "description": "d", "created_at": NOW} for i in range(1000)]
    with context.sessions() as db:
        assert insert_or_ignore(db, DeviceGroup, rows) == 1000
        assert insert_or_ignore(db, DeviceGroup, [*rows, {"name": "z", "description": "", "created_at": NOW}]) == 1
        assert insert_or_ignore(db, DeviceGroup, []) == 0
        assert db.scalars(select(DeviceGroup.description).where(DeviceGroup.name == "a")).one() == ""


def test_a_session_is_all_or_nothing(context: Context) -> None:
    def fail() -> None:
        with context.sessions() as db:
            db.add(DeviceGroup(name="a", created_at=NOW))
            db.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with context.reading() as db:
        assert db.query(DeviceGroup).count() == 0


def test_foreign_keys_are_held(context: Context) -> None:
    with pytest.raises(IntegrityError), context.sessions() as db:
        db.execute(text("INSERT INTO deployment_members (deployment_id, device_id, state, reason, \"update\") "
                        "VALUES (1, 'dev-000000000000', 'waiting', '', '{}')"))  # fmt: skip


def test_readers_do_not_wait_for_a_writer(context: Context) -> None:
    add(context, "a")
    with context.sessions() as writer:
        writer.add(DeviceGroup(name="b", created_at=NOW))
        writer.flush()
        with context.reading() as reader:
            assert reader.query(DeviceGroup).count() == 1
    with context.reading() as reader:
        assert reader.query(DeviceGroup).count() == 2


def test_writers_wait_for_each_other(context: Context) -> None:
    """Each reads, then writes what it read plus one: none is lost, none fails."""
    with context.sessions() as db:
        db.add(Lease(name="counter", holder="0", expires_at=NOW))

    def count() -> None:
        for _ in range(20):
            with context.sessions() as db:
                row = db.scalars(select(Lease).where(Lease.name == "counter").with_for_update()).one()
                row.holder = str(int(row.holder) + 1)

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with context.reading() as db:
        assert db.scalars(select(Lease.holder)).one() == "100"


def test_times_keep_their_moment(context: Context) -> None:
    moment = datetime(2026, 7, 1, 23, 30, 0, 123456, tzinfo=timezone(timedelta(hours=8)))
    with context.sessions() as db:
        db.add(Lease(name="t", holder="x", expires_at=moment))
    with context.reading() as db:
        read = db.scalars(select(Lease.expires_at)).one()
    assert read == moment
    assert read.utcoffset() == timedelta(0)


def test_secrets_are_shared_and_kept(context: Context, tmp_path: Path) -> None:
    first = context.secret("uploads")
    assert len(first) == 32
    assert context.secret("other") != first
    project = Project(root=tmp_path, settings=Settings(fleet=context.settings), found=True)
    again = open_context(project)
    assert again.secret("uploads") == first
    again.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"not a database at all" * 100)
    database = Database("sqlite:///fleet.db", tmp_path)
    with pytest.raises(StorageError, match="not a database"):
        database.upgrade()
    database.close()
