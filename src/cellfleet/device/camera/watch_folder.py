"""A camera that is a folder which another program fills: files that are still being written, renamed, copied twice.

A file counts when neither its size nor its time changed for ``settle_s``. Its content is its identity: the same bytes are
taken once, under whatever names they come; another content under a name that was there before is another frame.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cellfleet.canonical import canonical_bytes, sha256_hex
from cellfleet.config.fleet import CameraSection
from cellfleet.data.files import FOREIGN, image_suffix, natural_key
from cellfleet.device.camera.source import CapturedImage, field_of, well_of
from cellfleet.errors import CameraError
from cellfleet.ports import Clock
from cellfleet.ports.disk import append_line, storage_error

_LOG = logging.getLogger(__name__)
_UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", "~")
_MOST_FILES = 200_000
_MAX_BYTES = 4 << 30
_LOOK_S = 0.5


@dataclass
class _Seen:
    size: int
    modified_ns: int
    since_s: float


class Watched:
    """A source that is a folder, searched below, too; links are not followed.

    Args:
        settings: section [camera].
        folder: the folder; it need not exist yet.
        journal: file in which is kept what was taken.
        known: SHA-256 of frames that are taken, although a power cut may have kept that out of the journal.
    """

    def __init__(
        self, settings: CameraSection, folder: Path, journal: Path, clock: Clock, known: frozenset[str] = frozenset()
    ) -> None:
        self._settings, self._folder, self._journal, self._clock = settings, folder, journal, clock
        self._done: dict[str, tuple[int, int]] = {}
        self._digests: set[str] = set(known)
        self._seen: dict[str, _Seen] = {}
        self._looked_s = -1e18
        self._ready: list[str] = []
        self._position = 0
        self._offered: tuple[str, int, int, str] | None = None
        self._warned: set[tuple[str, str]] = set()
        self.duplicates = 0
        for line in _lines(journal):
            self._done[line[0]] = (line[1], line[2])
            self._digests.add(line[3])
            self._position += 1

    def next(self) -> CapturedImage | None:
        """The next file that is complete; see ``CameraSource``."""
        if not self._ready:
            self._look()
        while self._ready:
            name = self._ready[0]
            image = self._image(name)
            if image is not None:
                return image
            self._ready.pop(0)
        return None

    def mark_taken(self, image: CapturedImage, frame: str) -> None:
        """Write into the journal that it was taken."""
        if self._offered is None or self._offered[0] != image.original:
            raise CameraError(f"{image.original} was not given by this source")
        self._keep(*self._offered, frame)
        self._ready.pop(0)
        self._position += 1
        self._offered = None

    def is_over(self) -> bool:
        """Never: something may come."""
        return False

    def is_full(self, frames: int, idle_s: float) -> bool:
        """Nothing came for ``idle_s``."""
        del frames
        return idle_s >= self._settings.idle_s and not self._ready

    def wait_s(self) -> float:
        """A short while."""
        return 0.0 if self._ready else _LOOK_S

    def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        present = {}
        for name, size, modified_ns in self._files():
            if self._done.get(name) == (size, modified_ns):
                continue
            before = self._seen.get(name)
            if before is None or (before.size, before.modified_ns) != (size, modified_ns):
                before = _Seen(size, modified_ns, now_s)
            present[name] = before
        self._seen = present
        settled = [n for n, seen in present.items() if now_s - seen.since_s >= self._settings.settle_s]
        self._ready = sorted(settled, key=lambda n: (present[n].modified_ns, natural_key(n)))

    def _files(self) -> Iterator[tuple[str, int, int]]:
        count = 0
        for root, folders, names in os.walk(self._folder):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for name in names:
                path = Path(root) / name
                if not _is_image(name) or path.is_symlink():
                    continue
                try:
                    found = path.stat()
                except OSError:
                    continue  # renamed or removed just now
                count += 1
                if count > _MOST_FILES:
                    _LOG.warning("%s holds more than %d images; the rest is ignored", self._folder, _MOST_FILES)
                    return
                yield _printable(path.relative_to(self._folder)), found.st_size, found.st_mtime_ns

    def _image(self, name: str) -> CapturedImage | None:
        """The file as a image; None: it is gone, changes again, or was taken under another name."""
        seen = self._seen.get(name)
        path = self._folder / os.fsdecode(name.encode("utf-8", "surrogateescape"))
        if seen is None:
            return None
        try:
            before = path.stat()
            data = path.read_bytes() if before.st_size <= _MAX_BYTES else b""
            after = path.stat()
        except OSError as e:
            self._warn(name, f"cannot be read now: {e.strerror}")
            return None
        if after.st_size > _MAX_BYTES:
            self._warn(name, "is too large")
            return None
        facts = (after.st_size, after.st_mtime_ns)
        if (before.st_size, before.st_mtime_ns) != facts or facts != (seen.size, seen.modified_ns):
            return None  # it is being written again: it settles anew
        digest = sha256_hex(data)
        if digest in self._digests and data:
            self.duplicates += 1
            _LOG.info("%s has the content of a frame that was taken before: passed over", name)
            self._keep(name, *facts, digest, "")
            return None
        self._offered = (name, *facts, digest)
        well = well_of(path.name, self._settings.wells[0])
        return CapturedImage(path, name, well, field_of(path.name), position=self._position, data=data)

    def _warn(self, name: str, what: str) -> None:
        if (name, what) not in self._warned:
            self._warned.add((name, what))
            _LOG.warning("%s %s", name, what)

    def _keep(self, name: str, size: int, modified_ns: int, digest: str, frame: str) -> None:
        _append(self._journal, [name, size, modified_ns, digest, frame])
        self._done[name] = (size, modified_ns)
        self._digests.add(digest)
        self._seen.pop(name, None)


def _is_image(name: str) -> bool:
    low = name.lower()
    if name.startswith(".") or low.endswith(_UNFINISHED):
        return False
    return bool(image_suffix(name) and not low.endswith(".zarr")) or low.endswith(FOREIGN)


def _printable(path: Path) -> str:
    return os.fsencode(path.as_posix()).decode("utf-8", "surrogateescape")


def _append(journal: Path, line: list[str | int]) -> None:
    safe = [
        x.encode("utf-8", "surrogateescape").hex() if isinstance(x, str) and i == 0 else x for i, x in enumerate(line)
    ]
    append_line(journal, canonical_bytes(safe))


def _lines(journal: Path) -> Iterator[tuple[str, int, int, str]]:
    """What was taken; a line that a power cut left half is passed over."""
    try:
        data = journal.read_bytes()
    except FileNotFoundError:
        return
    except OSError as e:
        raise storage_error("read", journal, e) from e
    for line in data.split(b"\n"):
        try:
            name, size, modified_ns, digest, _ = json.loads(line)
            yield bytes.fromhex(name).decode("utf-8", "surrogateescape"), int(size), int(modified_ns), str(digest)
        except (ValueError, TypeError):
            continue
