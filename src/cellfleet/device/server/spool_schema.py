"""The spool's database: its tables, and how it is opened so that a power cut loses no stored item."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path

from cellfleet.errors import StorageError
from cellfleet.ports import make_dir

SPOOL_FORMAT = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (format_version INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS items_by_kind ON items (kind, id);
CREATE TABLE IF NOT EXISTS digests (id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS batches (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL, at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, experiment TEXT NOT NULL, frame TEXT NOT NULL,
    pin INTEGER NOT NULL, path TEXT NOT NULL, bytes INTEGER NOT NULL, UNIQUE (kind, experiment, frame, pin));
CREATE TABLE IF NOT EXISTS dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, body BLOB NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL);
"""


def open_database(path: Path, now: datetime) -> tuple[sqlite3.Connection, str]:
    """Open the database, or a new one when it is damaged.

    Args:
        path: of the file.
        now: for the name of a damaged file.

    Returns:
        The connection, and the new name of a damaged file that was set aside; empty: none was.

    Raises:
        StorageError: it cannot be opened or created, or a newer program wrote it.
    """
    make_dir(path.parent)
    try:
        return _open(path), ""
    except sqlite3.OperationalError as e:
        raise StorageError(f"cannot open {path}: {e}", hint="check the disk, its space and the permissions") from e
    except sqlite3.DatabaseError:
        aside = path.with_name(f"{path.stem}-damaged-{now:%Y%m%dT%H%M%S}{path.suffix}")
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _open(path), aside.name


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("damaged")
        _check_version(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
        return
    row = db.execute("SELECT MAX(format_version) FROM facts").fetchone()
    if row[0] is not None and row[0] > SPOOL_FORMAT:
        raise StorageError(f"{path} was written by a newer cellfleet", hint="update cellfleet on this instrument")
