"""What a download makes of each answer of a server: goes on, begins anew, or refuses. The answers are exact, no server runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.errors import NetworkError, StorageError
from cellfleet.ports import SystemClock
from cellfleet.ports.http import Response, Stream
from cellfleet.trust import download
from cellfleet.trust.artifact_download import Downloaded
from cellfleet.trust.refusals import DownloadBroke, EndlessData, WrongBytes

CONTENT = b"0123456789"


@dataclass(frozen=True)
class Target:
    sha256: str = sha256_hex(CONTENT)
    length: int = len(CONTENT)


Answer = tuple[int, dict[str, str], Sequence[bytes | NetworkError]]
"""Status, headers, pieces."""


@dataclass
class Answers:
    """Gives one answer after the other; the network breaks where a piece is an error."""

    answers: list[Answer]
    asked: list[dict[str, str]] = field(default_factory=list)

    def request(self, *_args: object, **_options: object) -> Response:
        raise AssertionError("a body is streamed")

    @contextlib.contextmanager
    def stream(
        self, _url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Iterator[Stream]:
        del timeout_s
        self.asked.append({k: v for k, v in (headers or {}).items() if k != "Accept-Encoding"})
        status, given, pieces = self.answers.pop(0)

        def chunks() -> Iterator[bytes]:
            for piece in pieces:
                if isinstance(piece, NetworkError):
                    raise piece
                yield piece

        yield Stream(status, given, chunks())


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "artifact"


def get(into: Path, *answers: Answer) -> Downloaded:
    server = Answers(list(answers))
    try:
        return download(server, "http://x/", Target(), into, clock=SystemClock())
    finally:
        assert server.answers == [], "each answer is asked for"


def came(into: Path, data: bytes, tag: str = "") -> None:
    """An earlier download that broke off."""
    into.with_name("artifact.part").write_bytes(data)
    if tag:
        into.with_name("artifact.part.etag").write_text(tag)


def left(into: Path) -> list[str]:
    return sorted(p.name for p in into.parent.iterdir())


@pytest.mark.parametrize("told", [{}, {"etag": '"a"'}], ids=["no tag", "the same tag"])
@pytest.mark.parametrize("total", ["*", "10"])
def test_the_rest_is_taken(into: Path, told: dict[str, str], total: str) -> None:
    came(into, CONTENT[:4], '"a"')
    assert get(into, (206, {"content-range": f"bytes 4-9/{total}", **told}, [CONTENT[4:]])) == Downloaded(into, 6)
    assert left(into) == ["artifact"]


def test_a_tag_where_none_was_known(into: Path) -> None:
    came(into, CONTENT[:4])
    assert get(into, (206, {"content-range": "bytes 4-9/10", "etag": '"b"'}, [CONTENT[4:]])).fetched_bytes == 6


@pytest.mark.parametrize(
    ("given", "tag"),
    [
        ({"content-range": "bytes 4-9/10", "etag": '"b"'}, '"a"'),
        ({"content-range": "bytes 4-9/11"}, '"a"'),
        ({"content-range": "bytes 4-9/11", "etag": '"a"'}, '"a"'),
        ({"content-range": "bytes 3-9/10"}, '"a"'),
        ({"content-range": "bytes 4-8/10"}, '"a"'),
        ({"content-range": "4-9/10"}, '"a"'),
        ({}, ""),
    ],
    ids=["tag", "length", "length, tag", "first byte", "last byte", "no unit", "nothing"],
)
def test_a_part_of_another_file_is_not_taken(into: Path, given: dict[str, str], tag: str) -> None:
    came(into, CONTENT[:4], tag)
    with pytest.raises(NetworkError, match="another file now"):
        get(into, (206, given, []))
    assert left(into) == []


def test_a_part_that_nobody_asked_for(into: Path) -> None:
    with pytest.raises(NetworkError, match="another file now"):
        get(into, (206, {"content-range": "bytes 0-9/10"}, []))


def test_one_byte_too_many(into: Path) -> None:
    with pytest.raises(EndlessData, match="more than the 10 bytes"):
        get(into, (200, {}, [CONTENT, b"!"]))
    assert left(into) == []


def test_another_length_removes_what_came_before(into: Path) -> None:
    came(into, CONTENT[:4], '"a"')
    with pytest.raises(WrongBytes, match="it has 11 bytes"):
        get(into, (200, {"content-length": "11"}, []))
    assert left(into) == []


def test_one_wrong_byte_from_before_costs_one_more_try(into: Path) -> None:
    came(into, b"?")
    rest: Answer = (206, {"content-range": "bytes 1-9/10"}, [CONTENT[1:]])
    whole: Answer = (200, {}, [CONTENT])
    assert get(into, rest, whole).fetched_bytes == 19
    assert into.read_bytes() == CONTENT


@pytest.mark.parametrize(("length", "kept"), [(200, True), (201, False)])
def test_a_tag_has_a_greatest_length(into: Path, length: int, kept: bool) -> None:
    with pytest.raises(DownloadBroke):
        get(into, (200, {"etag": '"' + "x" * (length - 2) + '"'}, [CONTENT[:4]]))
    assert left(into) == ["artifact.part", "artifact.part.etag"] if kept else ["artifact.part"]


@pytest.mark.parametrize("status", [404, 410, 403, 405, 411, 503])
def test_an_artifact_that_is_not_there(into: Path, status: int) -> None:
    with pytest.raises(NetworkError) as e:
        get(into, (status, {}, []))
    assert ("it is not there" in e.value.message) == (status in (404, 410))
    assert not isinstance(e.value, DownloadBroke)


def test_a_network_that_breaks_before_and_after_the_first_byte(into: Path) -> None:
    with pytest.raises(NetworkError) as e:
        get(into, (200, {}, [NetworkError("gone")]))
    assert not isinstance(e.value, DownloadBroke)
    with pytest.raises(DownloadBroke, match="gone") as broke:
        get(into, (200, {}, [CONTENT[:4], NetworkError("gone")]))
    assert broke.value.fetched_bytes == 4


def test_wrong_bytes_do_not_keep_the_name(into: Path) -> None:
    into.write_bytes(b"damaged on the disk")
    with pytest.raises(NetworkError):
        get(into, (503, {}, []))
    assert left(into) == []


def test_a_full_disk_is_described_in_megabytes(tmp_path: Path) -> None:
    target = Target(length=2_500_000_000)
    with pytest.raises(StorageError, match="1,200 MB are free, 2,600 MB are needed"):
        download(
            Answers([]),
            "http://x/",
            target,
            tmp_path / "artifact",
            clock=SystemClock(),
            min_free_bytes=100e6,
            free_bytes=lambda _: 1_200_000_000,
        )
