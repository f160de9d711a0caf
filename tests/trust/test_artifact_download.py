"""Downloads over a real loopback server that behaves, breaks off, lies, or changes its mind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.errors import NetworkError, StorageError
from cellfleet.ports import SystemClock
from cellfleet.ports.http import Response, Stream, SystemHttp
from cellfleet.trust import download
from cellfleet.trust.artifact_download import Downloaded, take
from cellfleet.trust.refusals import DownloadBroke, EndlessData, WrongBytes
from support_artifact_server import Behaviour, Handler, Server
from support_waiting import PATIENCE_S, wait_until

CONTENT = bytes(range(256)) * 2000
HALF = len(CONTENT) // 2


@dataclass(frozen=True)
class Target:
    sha256: str
    length: int


TARGET = Target(sha256_hex(CONTENT), len(CONTENT))


@pytest.fixture
def server() -> Iterator[Server]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    behaviour = Behaviour(CONTENT)
    listener.behaviour = behaviour  # type: ignore[attr-defined]
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Server(f"http://127.0.0.1:{listener.server_port}/artifact", behaviour)
    behaviour.released.set()
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / TARGET.sha256


def get(server: Server, into: Path, **options: object) -> Downloaded:
    return download(SystemHttp(timeout_s=5), server.url, TARGET, into, clock=SystemClock(), **options)  # type: ignore[arg-type]


def broken_off(server: Server, into: Path, after: int = HALF) -> DownloadBroke:
    """A download that ends after so many bytes."""
    server.behaviour.stop_after = after
    with pytest.raises(DownloadBroke) as e:
        get(server, into)
    server.behaviour.stop_after = None
    return e.value


def left_in(into: Path) -> list[str]:
    return sorted(p.name.removeprefix(into.name) for p in into.parent.iterdir())


# --- the good way


@pytest.mark.parametrize("chunked", [False, True])
def test_it_arrives_whole(server: Server, into: Path, chunked: bool) -> None:
    server.behaviour.chunked = chunked
    assert get(server, into) == Downloaded(into, len(CONTENT))
    assert into.read_bytes() == CONTENT
    assert left_in(into) == [""]


def test_what_is_there_is_not_fetched_again(server: Server, into: Path) -> None:
    get(server, into)
    assert get(server, into) == Downloaded(into, 0)
    assert server.behaviour.seen == [""]


def test_what_is_there_and_wrong_is_fetched_again(server: Server, into: Path) -> None:
    into.parent.mkdir()
    into.write_bytes(CONTENT[:-1] + b"?")
    assert get(server, into).fetched_bytes == len(CONTENT)
    assert into.read_bytes() == CONTENT


def test_progress_and_headers(server: Server, into: Path) -> None:
    told: list[tuple[int, int]] = []
    get(
        server,
        into,
        headers=lambda: {"Authorization": "Bearer x"},
        progress=lambda done, total, _note: told.append((done, total)),
    )
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)
    sent = server.behaviour.headers[0]
    assert (sent["Authorization"], sent["Accept-Encoding"]) == ("Bearer x", "identity")


# --- going on


def test_it_goes_on_where_it_stopped(server: Server, into: Path) -> None:
    broke = broken_off(server, into)
    assert broke.fetched_bytes == HALF
    assert "next attempt resumes" in broke.hint
    assert left_in(into) == [".part", ".part.etag"]
    assert get(server, into).fetched_bytes == len(CONTENT) - HALF
    assert server.behaviour.seen == ["", f"bytes={HALF}-"]
    assert server.behaviour.headers[1]["If-Range"] == '"one"'
    assert into.read_bytes() == CONTENT
    assert left_in(into) == [""]


def test_it_goes_on_again_and_again(server: Server, into: Path) -> None:
    fetched = sum(broken_off(server, into, after=100_000).fetched_bytes for _ in range(5))
    assert fetched + get(server, into).fetched_bytes == len(CONTENT)
    assert into.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges(server: Server, into: Path) -> None:
    broken_off(server, into)
    server.behaviour.ranges = False
    assert get(server, into).fetched_bytes == len(CONTENT)
    assert into.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_a_server_without_a_strong_tag(server: Server, into: Path, etag: str) -> None:
    server.behaviour.etag = etag
    broken_off(server, into)
    assert left_in(into) == [".part"]
    assert get(server, into).fetched_bytes == len(CONTENT) - HALF
    assert "If-Range" not in server.behaviour.headers[1]
    assert into.read_bytes() == CONTENT


def test_bytes_that_change_under_way_with_the_tag(server: Server, into: Path) -> None:
    """The server had other bytes first; its tag tells, and the download begins anew."""
    server.behaviour.content, server.behaviour.etag = b"?" * len(CONTENT), '"other"'
    broken_off(server, into)
    server.behaviour.content, server.behaviour.etag = CONTENT, '"one"'
    assert get(server, into).fetched_bytes == len(CONTENT)
    assert into.read_bytes() == CONTENT


def test_bytes_that_change_under_way_without_a_tag(server: Server, into: Path) -> None:
    """Only the hash can tell: one more try, from the start."""
    server.behaviour.content, server.behaviour.etag = b"?" * len(CONTENT), ""
    broken_off(server, into)
    server.behaviour.content = CONTENT
    assert get(server, into).fetched_bytes == 2 * len(CONTENT) - HALF
    assert server.behaviour.seen == ["", f"bytes={HALF}-", ""]
    assert into.read_bytes() == CONTENT


def test_a_server_that_sends_another_range_than_it_was_asked_for(server: Server, into: Path) -> None:
    broken_off(server, into)
    server.behaviour.lie_about_range = True
    with pytest.raises(NetworkError, match="another file"):
        get(server, into)
    assert left_in(into) == []
    server.behaviour.lie_about_range = False
    get(server, into)


def test_a_part_that_was_damaged_on_the_disk(server: Server, into: Path) -> None:
    broken_off(server, into)
    part = into.with_name(into.name + ".part")
    part.write_bytes(b"\0" * HALF)  # as after a power cut
    assert get(server, into).fetched_bytes == 2 * len(CONTENT) - HALF
    assert into.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 1])
def test_a_part_that_is_whole_or_too_long_and_wrong(server: Server, into: Path, size: int) -> None:
    into.parent.mkdir()
    into.with_name(into.name + ".part").write_bytes(b"?" * size)
    assert get(server, into).fetched_bytes == len(CONTENT)


def test_a_part_that_is_whole_and_right_needs_no_network(server: Server, into: Path) -> None:
    """The power went after the last byte and before the rename."""
    into.parent.mkdir()
    into.with_name(into.name + ".part").write_bytes(CONTENT)
    assert get(server, into) == Downloaded(into, 0)
    assert server.behaviour.seen == []
    assert left_in(into) == [""]


def test_a_killed_process_is_gone_on_from(server: Server, into: Path) -> None:
    server.behaviour.stop_after, server.behaviour.hold = HALF, True
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace as N\n"
        "from cellfleet.ports import SystemClock; from cellfleet.ports.http import SystemHttp\n"
        "from cellfleet.trust import download\n"
        "url, sha, length, into = sys.argv[1:]\n"
        "target = N(sha256=sha, length=int(length))\n"
        "download(SystemHttp(60), url, target, Path(into), clock=SystemClock())\n"
    )
    argv = [sys.executable, "-c", code, server.url, TARGET.sha256, str(TARGET.length), str(into)]
    child = subprocess.Popen(argv)
    part = into.with_name(into.name + ".part")
    try:
        assert server.behaviour.held.wait(PATIENCE_S)
        wait_until(
            lambda: part.exists() and part.stat().st_size > HALF // 2, "half", alive=lambda: child.poll() is None
        )
    finally:
        child.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        child.wait(60)
    server.behaviour.stop_after = None
    server.behaviour.released.set()
    kept = part.stat().st_size
    assert 0 < kept <= HALF
    assert get(server, into).fetched_bytes == len(CONTENT) - kept
    assert into.read_bytes() == CONTENT


# --- wrong bytes


def test_other_bytes_are_refused_and_nothing_stays(server: Server, into: Path) -> None:
    server.behaviour.content = CONTENT[:-1] + b"?"
    with pytest.raises(WrongBytes, match="SHA-256"):
        get(server, into)
    assert left_in(into) == []


@pytest.mark.parametrize("content", [CONTENT + b"!", CONTENT[:-1]], ids=["longer", "shorter"])
def test_another_length_is_refused_before_a_byte_is_read(server: Server, into: Path, content: bytes) -> None:
    server.behaviour.content = content
    with pytest.raises(WrongBytes, match=f"it has {len(content)} bytes"):
        get(server, into)
    assert left_in(into) == []


def test_more_than_was_promised_is_not_written(server: Server, into: Path) -> None:
    server.behaviour.content, server.behaviour.chunked = CONTENT * 2, True
    with pytest.raises(EndlessData):
        get(server, into)
    assert left_in(into) == []


def test_less_than_was_promised_is_a_broken_download(server: Server, into: Path) -> None:
    server.behaviour.content, server.behaviour.chunked = CONTENT[:-1], True
    with pytest.raises(DownloadBroke, match="connection ended"):
        get(server, into)


# --- servers that cannot


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429, 500, 503])
def test_a_server_that_has_nothing_now(server: Server, into: Path, status: int) -> None:
    broken_off(server, into)
    server.behaviour.status = status
    with pytest.raises(NetworkError, match=str(status)):
        get(server, into)
    server.behaviour.status = 200
    assert get(server, into).fetched_bytes == len(CONTENT) - HALF


def test_a_range_that_is_not_satisfiable(server: Server, into: Path) -> None:
    broken_off(server, into)
    server.behaviour.content = b"short"
    with pytest.raises(NetworkError, match="another file"):
        get(server, into)
    assert left_in(into) == []


def test_nobody_there(into: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(NetworkError):
        get(Server(f"http://127.0.0.1:{port}/", Behaviour(CONTENT)), into)


# --- the disk and the speed


def test_a_disk_without_room_is_told_before_anything_is_fetched(server: Server, into: Path) -> None:
    with pytest.raises(StorageError, match="are free") as e:
        get(server, into, min_free_bytes=1000, free_bytes=lambda _p: len(CONTENT) + 999)
    assert "free some space" in e.value.hint
    assert server.behaviour.seen == []
    get(server, into, min_free_bytes=1000, free_bytes=lambda _p: len(CONTENT) + 1000)


def test_room_is_needed_only_for_what_is_missing(server: Server, into: Path) -> None:
    broken_off(server, into)
    get(server, into, free_bytes=lambda _p: len(CONTENT) - HALF)


class SlowHttp:
    """Gives a piece every so many seconds of its own clock."""

    def __init__(self, pieces: list[bytes], every_s: float) -> None:
        self.pieces, self.every_s, self.at_s = pieces, every_s, 0.0

    def monotonic_s(self) -> float:
        return self.at_s

    def now(self) -> object:
        raise AssertionError("durations are not measured with the wall clock")

    def request(self, *_args: object, **_options: object) -> Response:
        raise AssertionError("a body is streamed")

    @contextlib.contextmanager
    def stream(
        self, _url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Iterator[Stream]:
        del headers, timeout_s

        def chunks() -> Iterator[bytes]:
            for piece in self.pieces:
                self.at_s += self.every_s
                yield piece

        yield Stream(200, {}, chunks())


def slow(pieces: list[bytes], every_s: float, into: Path, least: float = 1024) -> Downloaded:
    http = SlowHttp(pieces, every_s)
    content = b"".join(pieces)
    target = Target(sha256_hex(content), len(content))
    return download(http, "http://x/", target, into, clock=http, min_bytes_per_s=least)  # type: ignore[arg-type]


def test_a_download_that_is_too_slow_is_broken_off(into: Path) -> None:
    with pytest.raises(DownloadBroke, match="bytes/s are below the limit of 1024") as e:
        slow([b"x" * 1000] * 30, 1.0, into)
    assert e.value.fetched_bytes == 10_000
    assert into.with_name(into.name + ".part").stat().st_size == 10_000


def test_a_slow_download_that_is_just_fast_enough(into: Path) -> None:
    assert slow([b"x" * 1024] * 30, 1.0, into).fetched_bytes == 30 * 1024


@pytest.mark.parametrize("at", [0, 10])
def test_one_byte_less_than_that_is_too_slow(into: Path, at: int) -> None:
    """In the first ten seconds as in any later ones."""
    pieces = [b"x" * 1024] * 30
    pieces[at] = b"x" * 1023
    with pytest.raises(DownloadBroke, match="1024 bytes/s are below the limit of 1024"):
        slow(pieces, 1.0, into)


def test_a_pause_within_the_patience(into: Path) -> None:
    assert slow([b"x" * 50_000] * 3, 9.0, into).fetched_bytes == 150_000


def test_no_least_speed(into: Path) -> None:
    assert slow([b"x"] * 30, 100.0, into, least=0).fetched_bytes == 30


@pytest.mark.skipif(os.name == "nt", reason="there are no limits of a process there")
def test_a_disk_that_fills_up_under_way(server: Server, into: Path) -> None:
    """A limit of this process on the size of files stands for the full disk."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limits[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            get(server, into)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert get(server, into).fetched_bytes < len(CONTENT)
    assert into.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        get(server, tmp_path / "file" / "artifact")


# --- from an exported folder


def test_taking_from_a_folder(tmp_path: Path, into: Path) -> None:
    source = tmp_path / "artifact"
    source.write_bytes(CONTENT)
    assert take(source, TARGET, into) == Downloaded(into, 0)
    assert into.read_bytes() == CONTENT
    assert left_in(into) == [""]
    source.unlink()
    assert take(source, TARGET, into) == Downloaded(into, 0)


@pytest.mark.parametrize(
    ("content", "why"), [(CONTENT[:-1], f"it has {len(CONTENT) - 1} bytes"), (CONTENT[:-1] + b"?", "SHA-256")]
)
def test_taking_other_bytes(tmp_path: Path, into: Path, content: bytes, why: str) -> None:
    source = tmp_path / "artifact"
    source.write_bytes(content)
    with pytest.raises(WrongBytes, match=why):
        take(source, TARGET, into)
    assert left_in(into) == []


def test_taking_what_is_not_there(tmp_path: Path, into: Path) -> None:
    with pytest.raises(StorageError, match="absent"):
        take(tmp_path / "absent", TARGET, into)
    source = tmp_path / "artifact"
    source.write_bytes(CONTENT)
    with pytest.raises(StorageError, match="are needed"):
        take(source, TARGET, into, min_free_bytes=1e18)
