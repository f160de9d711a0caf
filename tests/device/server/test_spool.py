"""The spool: durable, bounded, the same batch under the same key until it is confirmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cellfleet.device.server.spool import Spool, SpoolBatch, SpoolLimits
from cellfleet.errors import StorageError
from cellfleet.ports import FixedClock
from cellfleet.wire.telemetry_events import Event, FrameTaken, Incident
from cellfleet.wire.telemetry_otlp import Gauge
from support_scheduler import START
from support_scheduler import taken_frame as frame


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def spool(tmp_path: Path, clock: FixedClock) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool" / "spool.db", clock, SpoolLimits(picture_bytes=3000, gauges=10))
    yield made
    made.close()


def batch_of(spool: Spool, most: int = 100) -> SpoolBatch:
    batch = spool.next_batch("event", most, 1 << 20)
    assert batch is not None
    return batch


def indexes(events: tuple[Event, ...]) -> list[int]:
    return [e.index for e in events if isinstance(e, FrameTaken)]


def test_in_order_until_confirmed(spool: Spool, clock: FixedClock) -> None:
    for i in range(5):
        spool.put(frame(i))
    first = batch_of(spool, 3)
    clock.at += timedelta(hours=1)
    spool.put(frame(5))
    assert batch_of(spool, 100) == first
    assert indexes(first.events) == [0, 1, 2]
    spool.confirm(first)
    second = batch_of(spool)
    assert indexes(second.events) == [3, 4, 5]
    assert second.key != first.key
    spool.confirm(second)
    assert spool.next_batch("event", 10, 1000) is None
    assert spool.backlog() == (0, 0)


def test_the_same_event_again_is_dropped(spool: Spool) -> None:
    spool.put(frame(1))
    spool.confirm(batch_of(spool))
    spool.put(frame(1))
    assert spool.backlog()[0] == 0
    spool.put(frame(1, "another"))
    assert spool.backlog()[0] == 1


def test_a_restart_gives_the_same_batch(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "spool.db"
    one = Spool(path, clock)
    for i in range(4):
        one.put(frame(i))
    before = batch_of(one, 2)
    one.close()
    two = Spool(path, clock)
    assert batch_of(two, 4) == before
    two.close()


def test_bytes_of_a_batch_are_bounded_but_one_item_always_goes(spool: Spool) -> None:
    for i in range(4):
        spool.put(frame(i, "x" * 1000))
    batch = spool.next_batch("event", 100, 2600)
    assert batch is not None
    assert len(batch) == 2
    spool.confirm(batch)
    alone = spool.next_batch("event", 100, 10)
    assert alone is not None
    assert len(alone) == 1


def test_split_and_set_aside(spool: Spool) -> None:
    for i in range(3):
        spool.put(frame(i))
    assert spool.split(batch_of(spool))
    one = batch_of(spool)
    assert indexes(one.events) == [0]
    assert not spool.split(one)
    spool.set_aside(one, "poison")
    assert indexes(batch_of(spool).events) == [1, 2]
    ((body, reason),) = spool.dead()
    assert '"index":0' in body
    assert reason == "poison"


def test_gauges_are_bounded_and_apart_from_events(spool: Spool) -> None:
    spool.put(frame(0))
    spool.put_gauges([Gauge("a", float(i), "1", START) for i in range(25)])
    batch = spool.next_batch("gauge", 100, 1 << 20)
    assert batch is not None
    assert [g.value for g in batch.gauges] == [float(i) for i in range(15, 25)]
    assert indexes(batch_of(spool).events) == [0]


def test_pictures_are_dropped_oldest_first_and_it_is_told(spool: Spool, tmp_path: Path) -> None:
    paths = []
    for i in range(5):
        paths.append(tmp_path / f"{i}.jpg")
        paths[-1].write_bytes(b"x" * 1000)
        spool.put_picture("thumbnail", "e1", f"f{i}", 1, paths[-1])
        spool.put(frame(i))
    assert [p.exists() for p in paths] == [False, False, True, True, True]
    newest = spool.next_picture()
    assert newest is not None
    assert (newest.frame, newest.bytes) == ("f4", 1000)
    events = batch_of(spool).events
    assert indexes(events) == [0, 1, 2, 3, 4]
    told = [e.text for e in events if isinstance(e, Incident)]
    assert len(told) == 1
    assert "the oldest 1 were dropped" in told[0]
    spool.picture_done(newest)
    assert not paths[4].exists()


def test_many_threads(spool: Spool) -> None:
    def put(start: int) -> None:
        for i in range(20):
            spool.put(frame(start + i))

    threads = [threading.Thread(target=put, args=(1000 * t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spool.backlog()[0] == 80


def test_what_was_put_survives_a_kill(tmp_path: Path, clock: FixedClock) -> None:
    code = """
import sys, itertools
from datetime import UTC, datetime
from pathlib import Path
from cellfleet.device.server.spool import Spool
from cellfleet.ports import SystemClock
from cellfleet.wire.telemetry_events import Incident
spool = Spool(Path(sys.argv[1]), SystemClock())
for i in itertools.count():
    spool.put(Incident(at=datetime(2026, 1, 1, tzinfo=UTC), kind="test", text=str(i)))
    print(i, flush=True)
"""
    path = tmp_path / "spool.db"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        last = -1
        for line in child.stdout:
            last = int(line)
            if last == 30:
                os.kill(child.pid, signal.SIGKILL)
        child.wait()
    spool = Spool(path, clock)
    texts = [e.text for e in batch_of(spool, 10_000).events if isinstance(e, Incident)]
    assert texts[: last + 1] == [str(i) for i in range(last + 1)]
    spool.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"this is no database, it only looks long enough to be one" * 50)
    spool = Spool(path, clock)
    (event,) = batch_of(spool).events
    assert isinstance(event, Incident)
    assert event.kind == "spool-damaged"
    assert len(list(tmp_path.glob("spool-damaged-*.db"))) == 1
    spool.close()


def test_a_file_of_a_newer_program_is_refused(tmp_path: Path, clock: FixedClock) -> None:
    import sqlite3

    path = tmp_path / "spool.db"
    Spool(path, clock).close()
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE facts SET format_version = 99")
    db.close()
    with pytest.raises(StorageError, match="newer"):
        Spool(path, clock)


def test_a_place_that_is_none(tmp_path: Path, clock: FixedClock) -> None:
    (tmp_path / "spool.db").mkdir()
    with pytest.raises(StorageError, match=r"spool\.db"):
        Spool(tmp_path / "spool.db", clock)
