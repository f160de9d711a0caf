"""Metadata over HTTP and from folders: missing is no error, endless and trickling answers end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cellfleet.errors import NetworkError, StorageError
from cellfleet.ports.http import Response, Stream
from cellfleet.trust import folder_fetch, http_fetch
from cellfleet.trust.metadata_fetch import read_folder
from cellfleet.trust.refusals import EndlessData


class FakeServer:
    """Answers with one status and pieces; its clock goes on with each piece."""

    def __init__(self, status: int, pieces: list[bytes], every_s: float = 0.0) -> None:
        self.status, self.pieces, self.every_s, self.at_s = status, pieces, every_s, 0.0
        self.asked: list[tuple[str, dict[str, str]]] = []

    def monotonic_s(self) -> float:
        return self.at_s

    def now(self) -> object:
        raise AssertionError("durations are not measured with the wall clock")

    def request(self, *_args: object, **_options: object) -> Response:
        raise AssertionError("a body is streamed")

    @contextlib.contextmanager
    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Iterator[Stream]:
        del timeout_s
        self.asked.append((url, dict(headers or {})))

        def chunks() -> Iterator[bytes]:
            for piece in self.pieces:
                self.at_s += self.every_s
                yield piece

        yield Stream(self.status, {}, chunks())


def test_a_file_over_http() -> None:
    server = FakeServer(200, [b"ab", b"cd"])
    fetch = http_fetch(server, "http://host/image/", lambda: {"Authorization": "Bearer x"})
    assert fetch("timestamp.json", 4) == b"abcd"
    url, headers = server.asked[0]
    assert url == "http://host/image/timestamp.json"
    assert headers["Authorization"] == "Bearer x"


@pytest.mark.parametrize("status", [404, 410])
def test_a_file_that_is_not_there(status: int) -> None:
    assert http_fetch(FakeServer(status, [b"no such file"]), "http://host")("2.root.json", 4) is None


@pytest.mark.parametrize("status", [204, 301, 401, 403, 429, 500, 503])
def test_a_server_that_cannot(status: int) -> None:
    with pytest.raises(NetworkError, match=str(status)):
        http_fetch(FakeServer(status, []), "http://host")("2.root.json", 4)


def test_endless_data_ends() -> None:
    server = FakeServer(200, [b"x" * 1000] * 1000)
    with pytest.raises(EndlessData, match="5000 bytes"):
        http_fetch(server, "http://host", clock=server)("timestamp.json", 5000)  # type: ignore[arg-type]


def test_a_server_that_trickles_is_given_up() -> None:
    server = FakeServer(200, [b"x"] * 1000, every_s=1.0)
    with pytest.raises(NetworkError, match="longer than 60 s"):
        http_fetch(server, "http://host", clock=server)("timestamp.json", 5000)  # type: ignore[arg-type]
    assert server.at_s < 65


def test_a_server_may_take_its_whole_time() -> None:
    server = FakeServer(200, [b"x"] * 60, every_s=1.0)
    fetch = http_fetch(server, "http://host", clock=server)  # type: ignore[arg-type]
    assert fetch("timestamp.json", 60) == b"x" * 60


def test_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "1.root.json").write_bytes(b"root")
    fetch = folder_fetch(tmp_path)
    assert fetch("1.root.json", 4) == b"root"
    assert fetch("2.root.json", 4) is None
    with pytest.raises(EndlessData):
        fetch("1.root.json", 3)
    (tmp_path / "3.root.json").mkdir()
    with pytest.raises(StorageError):
        fetch("3.root.json", 4)


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    assert read_folder(tmp_path / "absent") == {}
    for name in ("1.root.json", "timestamp.json", "notes.txt", ".hidden.json", "UPPER.json"):
        (tmp_path / name).write_bytes(name.encode())
    assert read_folder(tmp_path) == {n: n.encode() for n in ("1.root.json", "timestamp.json")}
