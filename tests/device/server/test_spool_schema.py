"""How the spool's file is opened: what was put survives a power cut."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cellfleet.device.server.spool_schema import open_database

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def test_every_commit_is_synced(tmp_path: Path) -> None:
    """In WAL mode NORMAL syncs at checkpoints alone: a power cut would lose commits. 2 is FULL."""
    db, aside = open_database(tmp_path / "spool" / "spool.db", NOW)
    assert aside == ""
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    db.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"no database at all" * 100)
    (tmp_path / "spool.db-wal").write_bytes(b"left")
    db, aside = open_database(path, NOW)
    assert aside == "spool-damaged-20260302T120000.db"
    assert (tmp_path / aside).read_bytes().startswith(b"no database")
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    db.close()
