"""The spool: telemetry and pictures for the server, on the disk until it confirms them. SQLite in WAL mode, every put synced.

Events are never dropped. Pictures are, the oldest first, when too much waits; gauges likewise. The same event again is
dropped (by the digest of its content), so that after a power cut everything unsure can simply be put again.
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
_TELL_EVERY_S = 3600.0


@dataclass(frozen=True)
class SpoolLimits:
    """What may wait.

    Attributes:
        picture_bytes: of all pictures; the oldest are dropped above it.
        gauges: likewise, in number.
        dead: items that the server refused for good and that are kept for inspection.
    """

    picture_bytes: int = 256 << 20
    gauges: int = 5000
    dead: int = 1000


@dataclass(frozen=True)
class SpoolBatch:
    """Items that travel in one request. The same until it is confirmed, split or set aside, over restarts too.

    Attributes:
        key: the Idempotency-Key.
        at: when it was made; part of the payload.
        events, gauges: one of them is empty.
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
    """A picture that waits for its upload; the file is the spool's and goes with it."""

    id: int
    kind: PictureKind
    experiment: str
    frame: str
    pin: int
    path: Path
    bytes: int


class Spool:
    """The queue of an instrument. Safe to be used by several threads, and by one process.

    Args:
        path: ``spool.db``; made when absent. One that is damaged is put aside and reported.
        clock: for the times of batches.
        limits: what may wait.

    Attributes:
        last_ms: time of the frame that was segmented last; None before the first one.
    """

    def __init__(self, path: Path, clock: Clock, limits: SpoolLimits | None = None) -> None:
        self._clock, self._limits = clock, limits or SpoolLimits()
        self._lock = threading.RLock()
        self._db, damaged = open_database(path, clock.now())
        self._puts = self._dropped = 0
        self._told_drop_s = -1e18
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
        """Keep an event; durable when it returns. One that was put before is dropped.

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
        """Keep measurements; above the limit the oldest go."""
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
        """Keep a picture for its upload; above the limit the oldest are dropped, with an event.

        Args:
            kind: thumbnail, overlay, mask or raw.
            experiment: of the frame.
            frame: its name.
            pin: of the experiment when the frame was segmented.
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
        """The oldest items that wait; the batch of before while it is not confirmed.

        Args:
            kind: event or gauge.
            max_items: of one batch.
            max_bytes: of one batch; a single larger item is a batch of its own.

        Returns:
            The batch; None: nothing waits.
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
        """The server has it: its items go."""
        with self._transaction() as db:
            self._remove(db, batch)

    def split(self, batch: SpoolBatch) -> bool:
        """Make two batches of one, in order; False when it holds one item only."""
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
        """Keep items that the server refuses for good apart; they are never sent again.

        Args:
            batch: the items.
            reason: for people.
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
        """Send its items under another key: the server knows this one with other bytes (an older program made them)."""
        with self._transaction() as db:
            db.execute("DELETE FROM batches WHERE key = ?", (batch.key,))

    def dead(self) -> list[tuple[str, str]]:
        """What was set aside: the item as JSON, and the reason."""
        with self._lock:
            return [
                (str(body, "utf-8"), reason)
                for body, reason in self._db.execute("SELECT body, reason FROM dead ORDER BY id")
            ]

    def next_picture(self) -> Picture | None:
        """The newest picture that waits: new pictures matter most."""
        with self._lock:
            row = self._db.execute(f"SELECT {_PICTURE} FROM pictures ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else _picture(row)

    def picture_done(self, picture: Picture) -> None:
        """It was uploaded, or never can be: it goes, and its file."""
        with self._transaction() as db:
            db.execute("DELETE FROM pictures WHERE id = ?", (picture.id,))
        with contextlib.suppress(OSError):
            picture.path.unlink()

    def backlog(self) -> tuple[int, int]:
        """Number and bytes of what the server has not confirmed."""
        with self._lock:
            items, size = self._db.execute("SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM items").fetchone()
            pictures, more = self._db.execute("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM pictures").fetchone()
        return int(items + pictures), int(size + more)

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
            gone: list[Picture] = []
            for row in db.execute(f"SELECT {_PICTURE} FROM pictures ORDER BY id"):
                if size <= self._limits.picture_bytes:
                    break
                gone.append(_picture(row))
                size -= row[6]
        if not gone:
            return
        for picture in gone:
            self.picture_done(picture)
        self._dropped += len(gone)
        now_s = self._clock.monotonic_s()
        if now_s - self._told_drop_s >= _TELL_EVERY_S:
            self._incident("pictures-dropped", because("spool.pictures-dropped", count=self._dropped))
            self._told_drop_s, self._dropped = now_s, 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._db:
                    yield self._db
            except sqlite3.Error as e:
                raise StorageError(f"cannot write the spool: {e}", hint="free some space on that disk") from e


def _picture(row: tuple[Any, ...]) -> Picture:
    number, kind, experiment, frame, pin, path, size = row
    return Picture(number, kind, experiment, frame, pin, Path(path), size)


_IDS = "SELECT id FROM items WHERE kind = ? AND id BETWEEN ? AND ? ORDER BY id"
_PICTURE = "id, kind, experiment, frame, pin, path, bytes"
