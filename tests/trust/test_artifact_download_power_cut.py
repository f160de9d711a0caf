"""The power is cut at every step of a download and of a copy: there is the whole artifact or none, and the next try ends well."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.ports import SystemClock
from cellfleet.ports.http import Response, Stream
from cellfleet.trust import download
from cellfleet.trust.artifact_download import take
from simulators.disk import CachingDisk, every_cut

CONTENT = bytes(range(256)) * 64


@dataclass(frozen=True)
class Target:
    sha256: str
    length: int


TARGET = Target(sha256_hex(CONTENT), len(CONTENT))


class Http:
    """A server with one artifact, in pieces; ranges and a strong tag."""

    def request(self, *_args: object, **_options: object) -> Response:
        raise AssertionError("a body is streamed")

    @contextlib.contextmanager
    def stream(
        self, _url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Iterator[Stream]:
        del timeout_s
        wanted = (headers or {}).get("Range", "")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        answer = {"etag": '"one"', "content-range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        rest = CONTENT[start:]
        pieces = (rest[i : i + 4096] for i in range(0, len(rest), 4096))
        yield Stream(206 if wanted else 200, answer, pieces)


@pytest.fixture
def act(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], object]:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    if request.param == "take":
        return lambda into: take(source, TARGET, into)
    return lambda into: download(Http(), "http://x/", TARGET, into, clock=SystemClock())


@pytest.mark.parametrize("act", ["download", "take"], indirect=True)
def test_power_cut_at_every_step(tmp_path: Path, act: Callable[[Path], object]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    into = home / "downloads" / TARGET.sha256
    cuts = 0
    for survived in every_cut(home, lambda: act(into)):
        if into.exists():
            assert into.read_bytes() == CONTENT, survived
        else:
            assert not survived.done, survived
        act(into)
        assert into.read_bytes() == CONTENT, survived
        assert [p.name for p in into.parent.iterdir() if not p.name.startswith(".")] == [into.name], survived
        cuts += 1
    assert cuts > 15


@pytest.mark.parametrize("act", ["download", "take"], indirect=True)
def test_the_content_is_synced_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, act: Callable[[Path], object]
) -> None:
    with CachingDisk(tmp_path) as disk:
        act(tmp_path / "artifact")
    log = disk.log()
    at = log.index("rename artifact.part -> artifact")
    assert log[at - 1 : at + 2] == ["sync artifact.part", "rename artifact.part -> artifact", "sync folder ."]
