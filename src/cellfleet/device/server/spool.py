"""The spool: telemetry and pictures on the disk until the server confirms them. SQLite in WAL mode; every put is synced.

Events are never dropped. Above their limits, the oldest pictures and gauges are. Duplicate events are ignored (by the digest
of their content), so that after a power cut all uncertain events can be put again.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cellfleet.canonical import canonical_bytes, sha256_hex
from cellfleet.device.server.spool_schema import SCHEMA, SPOOL_FORMAT, open_database
from cellfleet.errors import StorageError
from cellfleet.ports import Clock
from cellfleet.wire.reason import Reason, because, english
from cellfleet.wire.telemetry_events import Event, FrameSegmented, Incident, parse_event
from cellfleet.wire.telemetry_otlp import Gauge

Kind = Literal["event", "gauge"]
PictureKind = Literal["thumbnail", "overlay"]

_KEPT_DIGESTS = 200_000
_PRUNE_EVERY = 1000
_REPORT_DROPS_EVERY_S = 3600.0


@dataclass(frozen=True)
class SpoolLimits:
    """Limits of the spool.

    Attributes:
        picture_bytes: limit for all pictures; above it the oldest are dropped.
        gauges: limit for the number of gauges; above it the oldest are dropped.
        dead: number of permanently refused items to keep for inspection.
    """

    picture_bytes: int = 256 << 20
    gauges: int = 5000
    dead: int = 1000


@dataclass(frozen=True)
class SpoolBatch:
    """Items of one request. It stays the same, also after restarts, until it is confirmed, split or set aside.

    Attributes:
        key: the Idempotency-Key.
        at: time of its creation; part of the payload.
        events, gauges: one of the two is empty.
    """

    key: str
    kind: Kind
    at: datetime
    first_id: int
    last_id: int
    events: tuple[Event, ...] = ()
    gauges: tuple[Gauge, ...] = ()

    def __len__(self) -> int:
        return len(self.events) + len(self.gauges)


@dataclass(frozen=True)
class Picture:
    """A picture to upload; the spool owns its file and removes it with the entry."""

    id: int
    kind: PictureKind
    experiment: str
    frame: str
    pin: int
    path: Path
    bytes: int


class Spool:
    """The queue of an instrument. Thread-safe; for one process only.

    Args:
        path: ``spool.db``; created when absent. A damaged file is set aside and reported.
        clock: for the times of batches.
        limits: limits of the spool.

    Attributes:
        last_ms: segmentation time of the latest frame; None: no frame yet.
    """

    def __init__(self, path: Path, clock: Clock, limits: SpoolLimits | None = None) -> None:
        self._clock, self._limits = clock, limits or SpoolLimits()
        self._lock = threading.RLock()
        self._db, damaged = open_database(path, clock.now())
        self._puts = self._dropped = 0
        self._drop_reported_s = -1e18
        self.last_ms: float | None = None
        with self._transaction() as db:
            db.executescript(SCHEMA)
            db.execute(
                "INSERT OR IGNORE INTO facts (format_version, id) VALUES (?, ?)", (SPOOL_FORMAT, secrets.token_hex(8))
            )
        self._id = str(self._db.execute("SELECT id FROM facts").fetchone()[0])
        if damaged:
            self._incident("spool-damaged", because("spool.damaged", file=damaged))

    def put(self, event: Event) -> None:
        """Store an event; durable when the call returns. A duplicate is ignored.

        Raises:
            StorageError: the disk refuses.
        """
        body = canonical_bytes(event.model_dump(mode="json"))
        if isinstance(event, FrameSegmented):
            self.last_ms = event.timings_ms.get("total", self.last_ms)
        with self._transaction() as db:
            digest = bytes.fromhex(sha256_hex(body))
            if db.execute("INSERT OR IGNORE INTO digests (digest) VALUES (?)", (digest,)).rowcount:
                db.execute("INSERT INTO items (kind, body) VALUES ('event', ?)", (body,))
            self._puts += 1
            if self._puts % _PRUNE_EVERY == 1:
                db.execute("DELETE FROM digests WHERE id <= (SELECT MAX(id) FROM digests) - ?", (_KEPT_DIGESTS,))

    def put_gauges(self, gauges: Sequence[Gauge]) -> None:
        """Store measurements; above the limit the oldest are dropped."""
        rows = [
            (canonical_bytes({"name": g.name, "value": g.value, "unit": g.unit, "at": g.at.isoformat()}),)
            for g in gauges
        ]
        with self._transaction() as db:
            db.executemany("INSERT INTO items (kind, body) VALUES ('gauge', ?)", rows)
            (count,) = db.execute("SELECT COUNT(*) FROM items WHERE kind = 'gauge'").fetchone()
            if count > self._limits.gauges:
                db.execute(
                    "DELETE FROM items WHERE id IN (SELECT id FROM items WHERE kind = 'gauge' AND id NOT IN "
                    "(SELECT i.id FROM items i JOIN batches b ON i.id BETWEEN b.first_id AND b.last_id) "
                    "ORDER BY id LIMIT ?)",
                    (count - self._limits.gauges,),
                )

    def put_picture(self, kind: PictureKind, experiment: str, frame: str, pin: int, path: Path) -> None:
        """Store a picture for upload; above the limit the oldest are dropped, with an event.

        Args:
            kind: thumbnail or overlay.
            experiment: of the frame.
            frame: its name.
            pin: number of the experiment's pin when the frame was segmented.
            path: of the file, which the spool removes after the upload.
        """
        size = path.stat().st_size if path.is_file() else 0
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO pictures (kind, experiment, frame, pin, path, bytes) VALUES (?, ?, ?, ?, ?, ?)",
                (kind, experiment, frame, pin, str(path), size),
            )
        self._drop_pictures()

    def next_batch(self, kind: Kind, max_items: int, max_bytes: int) -> SpoolBatch | None:
        """The batch with the oldest items; the same batch until it is confirmed.

        Args:
            kind: event or gauge.
            max_items: limit for one batch.
            max_bytes: limit for one batch; a larger item forms its own batch.

        Returns:
            The batch; None: the spool holds no such items.
        """
        with self._transaction() as db:
            open_ = db.execute(
                "SELECT key, first_id, last_id, at FROM batches WHERE kind = ? ORDER BY first_id LIMIT 1", (kind,)
            ).fetchone()
            if open_ is None:
                span = self._span(db, kind, max_items, max_bytes)
                if span is None:
                    return None
                open_ = self._open_batch(db, kind, *span)
            return self._batch(db, kind, *open_)

    def confirm(self, batch: SpoolBatch) -> None:
        """Remove the items of a batch that the server has stored."""
        with self._transaction() as db:
            self._remove(db, batch)

    def split(self, batch: SpoolBatch) -> bool:
        """Split a batch in two, in order. Returns False when it holds a single item."""
        with self._transaction() as db:
            ids = [i for (i,) in db.execute(_IDS, (batch.kind, batch.first_id, batch.last_id))]
            if len(ids) < 2:
                return False
            half = len(ids) // 2
            db.execute("DELETE FROM batches WHERE key = ?", (batch.key,))
            self._open_batch(db, batch.kind, ids[0], ids[half - 1])
            self._open_batch(db, batch.kind, ids[half], ids[-1])
        return True

    def set_aside(self, batch: SpoolBatch, reason: str) -> None:
        """Set aside items that the server refuses permanently; they are not sent again.

        Args:
            batch: the items.
            reason: text, for inspection.
        """
        with self._transaction() as db:
            db.execute(
                "INSERT INTO dead (kind, body, reason, at) SELECT kind, body, ?, ? FROM items "
                "WHERE kind = ? AND id BETWEEN ? AND ?",
                (reason, self._clock.now().isoformat(), batch.kind, batch.first_id, batch.last_id),
            )
            self._remove(db, batch)
            db.execute("DELETE FROM dead WHERE id <= (SELECT MAX(id) FROM dead) - ?", (self._limits.dead,))

    def renew(self, batch: SpoolBatch) -> None:
        """Send its items under another key: the server knows this key with other bytes, of an older program."""
        with self._transaction() as db:
            db.execute("DELETE FROM batches WHERE key = ?", (batch.key,))

    def dead(self) -> list[tuple[str, str]]:
        """The items that were set aside: JSON text and reason."""
        with self._lock:
            return [
                (str(body, "utf-8"), reason)
                for body, reason in self._db.execute("SELECT body, reason FROM dead ORDER BY id")
            ]

    def next_picture(self) -> Picture | None:
        """The newest picture: new pictures matter most."""
        with self._lock:
            row = self._db.execute(f"SELECT {_PICTURE} FROM pictures ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else _picture(row)

    def picture_done(self, picture: Picture) -> None:
        """Remove a picture and its file after its upload or its final refusal."""
        with self._transaction() as db:
            db.execute("DELETE FROM pictures WHERE id = ?", (picture.id,))
        with contextlib.suppress(OSError):
            picture.path.unlink()

    def backlog(self) -> tuple[int, int]:
        """Number and bytes of unconfirmed items and pictures."""
        with self._lock:
            items, size = self._db.execute("SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM items").fetchone()
            pictures, picture_size = self._db.execute(
                "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM pictures"
            ).fetchone()
        return int(items + pictures), int(size + picture_size)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _span(self, db: sqlite3.Connection, kind: Kind, max_items: int, max_bytes: int) -> tuple[int, int] | None:
        first, last, size = 0, 0, 0
        rows = db.execute(
            "SELECT id, LENGTH(body) FROM items WHERE kind = ? ORDER BY id LIMIT ?", (kind, max_items)
        ).fetchall()
        for number, length in rows:
            size += length
            if first and size > max_bytes:
                break
            first, last = first or number, number
        return (first, last) if first else None

    def _open_batch(self, db: sqlite3.Connection, kind: Kind, first: int, last: int) -> tuple[str, int, int, str]:
        now = self._clock.now()
        key = f"{self._id}-{kind}-{first}-{last}-{secrets.token_hex(4)}"
        row = (key, first, last, now.isoformat())
        db.execute("INSERT INTO batches (key, first_id, last_id, at, kind) VALUES (?, ?, ?, ?, ?)", (*row, kind))
        return row

    def _batch(self, db: sqlite3.Connection, kind: Kind, key: str, first: int, last: int, at: str) -> SpoolBatch:
        bodies = [
            json.loads(body)
            for (body,) in db.execute(
                "SELECT body FROM items WHERE kind = ? AND id BETWEEN ? AND ? ORDER BY id", (kind, first, last)
            )
        ]
        when = datetime.fromisoformat(at)
        if kind == "event":
            return SpoolBatch(key, kind, when, first, last, events=tuple(parse_event(b) for b in bodies))
        gauges = (Gauge(b["name"], b["value"], b["unit"], datetime.fromisoformat(b["at"])) for b in bodies)
        return SpoolBatch(key, kind, when, first, last, gauges=tuple(gauges))

    def _remove(self, db: sqlite3.Connection, batch: SpoolBatch) -> None:
        db.execute(
            "DELETE FROM items WHERE kind = ? AND id BETWEEN ? AND ?", (batch.kind, batch.first_id, batch.last_id)
        )
        db.execute("DELETE FROM batches WHERE key = ?", (batch.key,))

    def _incident(self, kind: str, reason: Reason) -> None:
        self.put(Incident(at=self._clock.now(), kind=kind, text=english(reason), reason_data=reason))

    def _drop_pictures(self) -> None:
        with self._transaction() as db:
            (size,) = db.execute("SELECT COALESCE(SUM(bytes), 0) FROM pictures").fetchone()
            dropped: list[Picture] = []
            for row in db.execute(f"SELECT {_PICTURE} FROM pictures ORDER BY id"):
                if size <= self._limits.picture_bytes:
                    break
                dropped.append(_picture(row))
                size -= row[6]
        if not dropped:
            return
        for picture in dropped:
            self.picture_done(picture)
        self._dropped += len(dropped)
        now_s = self._clock.monotonic_s()
        if now_s - self._drop_reported_s >= _REPORT_DROPS_EVERY_S:
            self._incident("pictures-dropped", because("spool.pictures-dropped", count=self._dropped))
            self._drop_reported_s, self._dropped = now_s, 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._db:
                    yield self._db
            except sqlite3.Error as e:
                raise StorageError(f"cannot write the spool: {e}", hint="free space on that disk") from e


def _picture(row: tuple[Any, ...]) -> Picture:
    number, kind, experiment, frame, pin, path, size = row
    return Picture(number, kind, experiment, frame, pin, Path(path), size)


_IDS = "SELECT id FROM items WHERE kind = ? AND id BETWEEN ? AND ? ORDER BY id"
_PICTURE = "id, kind, experiment, frame, pin, path, bytes"
