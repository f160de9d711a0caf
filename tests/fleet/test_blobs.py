"""Bytes by digest: whole or not at all, never outside the folder."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellfleet.errors import FleetError, StorageError
from cellfleet.fleet.blobs import Blobs
from cellfleet.fleet.refusals import RequestRefused
from simulators.disk import every_cut

DATA = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "store")


def files(blobs: Blobs) -> list[Path]:
    return [p for p in blobs.folder.rglob("*") if p.is_file()]


def test_in_and_out(blobs: Blobs) -> None:
    assert not blobs.has(DIGEST)
    assert blobs.put([DATA[:1000], DATA[1000:]], sha256=DIGEST, length=len(DATA)) == DIGEST
    assert blobs.put([DATA]) == DIGEST
    assert blobs.has(DIGEST)
    assert blobs.size(DIGEST) == len(DATA)
    assert blobs.read(DIGEST) == DATA
    assert files(blobs) == [blobs.path(DIGEST)]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (10, 20), (300_000, 900_000), (len(DATA) - 1, None)])
def test_a_part(blobs: Blobs, start: int, end: int | None) -> None:
    blobs.put([DATA])
    assert b"".join(blobs.open(DIGEST, start, end)) == DATA[start:end]


def test_other_bytes_than_announced(blobs: Blobs) -> None:
    for chunks, length, word in (
        ([DATA[:-1]], len(DATA), "length-mismatch"),
        ([DATA, b"x"], len(DATA), "length-mismatch"),
        ([DATA[:-1] + b"x"], len(DATA), "digest-mismatch"),
    ):
        with pytest.raises(RequestRefused) as refusal:
            blobs.put(chunks, sha256=DIGEST, length=length)
        assert (refusal.value.status, refusal.value.code) == (422, word)
    assert files(blobs) == []


def test_too_many_bytes_are_not_read_to_their_end(blobs: Blobs) -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"x" * 1000

    with pytest.raises(RequestRefused):
        blobs.put(endless(), length=5000)
    assert asked == 6


def test_a_sender_that_breaks_off(blobs: Blobs) -> None:
    def broken() -> Iterator[bytes]:
        yield DATA[:1000]
        raise ConnectionResetError

    with pytest.raises(StorageError):
        blobs.put(broken())
    assert files(blobs) == []


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "/", "..", "0" * 64 + "\n"]
)
def test_a_path_is_no_digest(blobs: Blobs, name: str) -> None:
    for action in (blobs.has, blobs.size, blobs.open, blobs.remove, blobs.read, blobs.path):
        with pytest.raises(FleetError):
            action(name)
    with pytest.raises(FleetError):
        blobs.put([b""], sha256=name)


def test_what_is_not_there(blobs: Blobs) -> None:
    for action in (blobs.size, blobs.open, blobs.read):
        with pytest.raises(RequestRefused) as refusal:
            action(DIGEST)
        assert refusal.value.status == 404
    blobs.remove(DIGEST)
    blobs.put([DATA])
    blobs.remove(DIGEST)
    assert not blobs.has(DIGEST)


def test_the_same_bytes_from_four_senders_at_once(blobs: Blobs) -> None:
    def put() -> None:
        for _ in range(5):
            blobs.put([DATA[:100], DATA[100:]], sha256=DIGEST, length=len(DATA))

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blobs.read(DIGEST) == DATA
    assert files(blobs) == [blobs.path(DIGEST)]


def test_bytes_that_were_taken_survive_a_power_cut(tmp_path: Path) -> None:
    data = DATA[:5000]

    def act() -> None:
        Blobs(tmp_path / "store").put([data])

    for survived in every_cut(tmp_path, act):
        blobs = Blobs(tmp_path / "store")
        digest = hashlib.sha256(data).hexdigest()
        assert blobs.read(digest) == data if blobs.has(digest) else not survived.done, survived
