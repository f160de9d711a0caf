"""Download artifacts: resume where the last attempt stopped, and accept only the promised bytes.

``<file>.part`` holds what was received so far and ``<file>.part.etag`` the server's entity tag of it. The file gets its name only
after its length and SHA-256 were verified and its content was synced.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cellfleet.canonical import sha256_file
from cellfleet.errors import NetworkError, StorageError
from cellfleet.ports import Clock, ProgressFn, make_dir, silent, write_atomic
from cellfleet.ports.disk import move_into_place, storage_error
from cellfleet.ports.http import CHUNK, Http, Stream
from cellfleet.trust.refusals import DownloadBroke, EndlessData, WrongBytes

_WINDOW_S = 10.0
_MAX_TAG = 200


class ExpectedBytes(Protocol):
    """What an artifact must be, such as an ``ArtifactRef``."""

    @property
    def sha256(self) -> str: ...

    @property
    def length(self) -> int: ...


@dataclass(frozen=True)
class Downloaded:
    """An artifact on the disk with verified length and SHA-256.

    Attributes:
        path: the file.
        fetched_bytes: received over the network in this call.
    """

    path: Path
    fetched_bytes: int


@dataclass
class _Part:
    """The file that is being received, and the hash of its content."""

    path: Path
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def tag_path(self) -> Path:
        return self.path.with_name(self.path.name + ".etag")

    def tag(self) -> str:
        """The server's entity tag of these bytes; empty: none is known."""
        with contextlib.suppress(OSError):
            return self.tag_path.read_text("utf-8")[:_MAX_TAG]
        return ""

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.tag_path.unlink(missing_ok=True)
        self.size, self.digest = 0, hashlib.sha256()


def download(
    http: Http,
    url: str,
    target: ExpectedBytes,
    into: Path,
    *,
    clock: Clock,
    headers: Callable[[], Mapping[str, str]] = dict,
    min_free_bytes: float = 0,
    min_bytes_per_s: float = 1024,
    progress: ProgressFn = silent,
    free_bytes: Callable[[Path], int] | None = None,
) -> Downloaded:
    """Download an artifact, or the rest of it.

    Args:
        http: the network.
        url: of the artifact.
        target: the length (bytes) and SHA-256 that it must have.
        into: the resulting file; if it exists and is right, nothing is fetched.
        clock: measures the speed.
        headers: called for each request; gives headers such as ``Authorization``.
        min_free_bytes: space that must stay free on the disk.
        min_bytes_per_s: least speed over ten seconds; a slower download is stopped.
        progress: called with the bytes received and the length.
        free_bytes: gives the free space of a folder's disk (default: asks the system).

    Returns:
        The file, and how many bytes were received.

    Raises:
        WrongBytes, EndlessData: the server has other bytes; nothing of them stays.
        DownloadBroke: it stopped early; the next call resumes.
        NetworkError: the server cannot be reached, or answers with an error.
        StorageError: the disk is full or fails.
    """
    part = _Part(into.with_name(into.name + ".part"))
    try:
        make_dir(into.parent)
        if _is_right(into, target):
            return Downloaded(into, 0)
        _read_part(part, target)
        fetched = 0
        while part.size < target.length:
            _need_space(into.parent, target.length - part.size + min_free_bytes, free_bytes or _free)
            resumed = part.size > 0
            fetched += _fetch(http, url, target, part, headers, _Speed(clock, min_bytes_per_s), progress)
            if part.digest.hexdigest() == target.sha256:
                break
            part.remove()
            if not resumed:
                raise WrongBytes(f"{url}: its SHA-256 differs from the one that both repositories name")
            # they changed under way; once more from the start
        _finish(part, into)
        return Downloaded(into, fetched)
    except OSError as e:
        raise storage_error("write", into, e) from e


def take(source: Path, target: ExpectedBytes, into: Path, *, min_free_bytes: float = 0) -> Downloaded:
    """Copy an artifact from an exported folder, with the same checks as a download.

    Args:
        source: the file in the folder.
        target: the length (bytes) and SHA-256 that it must have.
        into: the resulting file; if it exists and is right, nothing is copied.
        min_free_bytes: space that must stay free on the disk.

    Returns:
        The file; no bytes were fetched over the network.

    Raises:
        WrongBytes: the file has other bytes.
        StorageError: the file does not exist, or the disk is full or fails.
    """
    part = _Part(into.with_name(into.name + ".part"))
    try:
        make_dir(into.parent)
        if _is_right(into, target):
            return Downloaded(into, 0)
        length = source.stat().st_size
        if length != target.length:
            raise WrongBytes(f"{source}: it has {length} bytes; both repositories name {target.length}")
        _need_space(into.parent, length + min_free_bytes, _free)
        with source.open("rb") as f, part.path.open("wb") as out:
            while chunk := f.read(CHUNK):
                out.write(chunk)
                part.digest.update(chunk)
        if part.digest.hexdigest() != target.sha256:
            part.remove()
            raise WrongBytes(f"{source}: its SHA-256 differs from the one that both repositories name")
        _finish(part, into)
        return Downloaded(into, 0)
    except OSError as e:
        raise storage_error("copy", source, e) from e


def _is_right(path: Path, target: ExpectedBytes) -> bool:
    if not path.exists():
        return False
    if path.stat().st_size == target.length and sha256_file(path) == target.sha256:
        return True
    path.unlink()
    return False


def _read_part(part: _Part, target: ExpectedBytes) -> None:
    """Read what was received earlier; remove a part that cannot become the target."""
    with contextlib.suppress(FileNotFoundError), part.path.open("rb") as f:
        while chunk := f.read(CHUNK):
            part.digest.update(chunk)
            part.size += len(chunk)
    if part.size >= target.length and part.digest.hexdigest() != target.sha256:
        part.remove()


def _need_space(folder: Path, needed_bytes: float, free_bytes: Callable[[Path], int]) -> None:
    free = free_bytes(folder)
    if free < needed_bytes:
        raise StorageError(
            f"{folder}: {free / 1e6:,.0f} MB are free, {needed_bytes / 1e6:,.0f} MB are needed",
            hint="free some space on that disk",
        )


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _fetch(
    http: Http,
    url: str,
    target: ExpectedBytes,
    part: _Part,
    headers: Callable[[], Mapping[str, str]],
    speed: _Speed,
    progress: ProgressFn,
) -> int:
    """Send one request; return the bytes received."""
    asked = {**headers(), "Accept-Encoding": "identity"}
    if part.size:
        asked["Range"] = f"bytes={part.size}-"
        if part.tag():
            asked["If-Range"] = part.tag()
    fetched = 0
    try:
        with http.stream(url, headers=asked) as answer:
            _begin(answer, url, target, part)
            for chunk in _chunks_into(part, answer, url, target):
                fetched += chunk
                progress(part.size, target.length, "")
                speed.note(chunk, url)
    except EndlessData:
        part.remove()
        raise
    except NetworkError as e:
        if not fetched:
            raise
        raise DownloadBroke(e.message, fetched_bytes=fetched) from e
    if part.size < target.length:
        raise DownloadBroke(
            f"{url}: the connection ended after {part.size} of {target.length} bytes", fetched_bytes=fetched
        )
    return fetched


def _begin(answer: Stream, url: str, target: ExpectedBytes, part: _Part) -> None:
    """Read the head of the answer: keep the part if the answer continues it, else start anew or refuse."""
    if answer.status == 206 and part.size and _goes_on(answer, part, target):
        return
    if answer.status in (206, 416):
        part.remove()
        raise NetworkError(f"{url}: the server has another file now", hint="the next attempt starts from the beginning")
    if answer.status != 200:
        gone = " (it is not there)" if answer.status in (404, 410) else ""
        raise NetworkError(f"{url}: the server answers {answer.status}{gone}", hint="it is retried automatically")
    length = answer.headers.get("content-length", "")
    if length.isdigit() and int(length) != target.length:
        part.remove()
        raise WrongBytes(f"{url}: it has {length} bytes; both repositories name {target.length}")
    part.remove()
    tag = answer.headers.get("etag", "")
    if tag and not tag.startswith("W/") and len(tag) <= _MAX_TAG:
        write_atomic(part.tag_path, tag.encode())


def _goes_on(answer: Stream, part: _Part, target: ExpectedBytes) -> bool:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("content-range", ""))
    if not found or int(found[1]) != part.size or int(found[2]) != target.length - 1:
        return False
    tag = answer.headers.get("etag", "")
    return found[3] in ("*", str(target.length)) and (not tag or not part.tag() or tag == part.tag())


def _chunks_into(part: _Part, answer: Stream, url: str, target: ExpectedBytes) -> Iterator[int]:
    with part.path.open("ab") as out:
        for chunk in answer.chunks:
            if part.size + len(chunk) > target.length:
                raise EndlessData(f"{url}: more than the {target.length} bytes that both repositories name")
            out.write(chunk)
            part.digest.update(chunk)
            part.size += len(chunk)
            yield len(chunk)


def _finish(part: _Part, into: Path) -> None:
    part.tag_path.unlink(
        missing_ok=True
    )  # first: a whole part needs no tag, and after the rename nothing looks for one
    move_into_place(part.path, into)


class _Speed:
    """Stops a download whose speed stays too low."""

    def __init__(self, clock: Clock, least_bytes_per_s: float) -> None:
        self._clock, self._least = clock, least_bytes_per_s
        self._since, self._bytes = clock.monotonic_s(), 0

    def note(self, size: int, url: str) -> None:
        self._bytes += size
        took = self._clock.monotonic_s() - self._since
        if took < _WINDOW_S:
            return
        if self._bytes / took < self._least:
            raise NetworkError(f"{url}: {self._bytes / took:.0f} bytes/s are below the limit of {self._least:g}")
        self._since, self._bytes = self._clock.monotonic_s(), 0
