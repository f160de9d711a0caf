"""A camera that watches a folder which another program fills. Files may be incomplete, renamed or duplicated.

A file is complete when its size and modification time have not changed for ``settle_s``. Files are identified by content:
the same bytes are taken once, under any name; new content under a known name is another frame.
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
_MAX_FILES = 200_000
_MAX_BYTES = 4 << 30
_SCAN_S = 0.5


@dataclass
class _FileState:
    size: int
    modified_ns: int
    since_s: float


class Watched:
    """A source that watches a folder and its sub-folders; symbolic links are ignored.

    Args:
        settings: section [camera].
        folder: it need not exist yet.
        journal: file that lists the taken files.
        known: SHA-256 of taken frames that the journal may lack after a power cut.
    """

    def __init__(
        self, settings: CameraSection, folder: Path, journal: Path, clock: Clock, known: frozenset[str] = frozenset()
    ) -> None:
        self._settings, self._folder, self._journal, self._clock = settings, folder, journal, clock
        self._done: dict[str, tuple[int, int]] = {}
        self._digests: set[str] = set(known)
        self._files_seen: dict[str, _FileState] = {}
        self._scanned_s = -1e18
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
        """The next complete file; see ``CameraSource``."""
        if not self._ready:
            self._scan()
        while self._ready:
            name = self._ready[0]
            image = self._image(name)
            if image is not None:
                return image
            self._ready.pop(0)
        return None

    def mark_taken(self, image: CapturedImage, frame: str) -> None:
        """Add the file to the journal."""
        if self._offered is None or self._offered[0] != image.original:
            raise CameraError(f"{image.original} is not from this source")
        self._keep(*self._offered, frame)
        self._ready.pop(0)
        self._position += 1
        self._offered = None

    def is_exhausted(self) -> bool:
        """Never: files may always follow."""
        return False

    def is_full(self, frames: int, idle_s: float) -> bool:
        """No file arrived for ``idle_s``."""
        del frames
        return idle_s >= self._settings.idle_s and not self._ready

    def wait_s(self) -> float:
        """Seconds until the next scan."""
        return 0.0 if self._ready else _SCAN_S

    def _scan(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._scanned_s < _SCAN_S:
            return
        self._scanned_s = now_s
        present = {}
        for name, size, modified_ns in self._files():
            if self._done.get(name) == (size, modified_ns):
                continue
            before = self._files_seen.get(name)
            if before is None or (before.size, before.modified_ns) != (size, modified_ns):
                before = _FileState(size, modified_ns, now_s)
            present[name] = before
        self._files_seen = present
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
                    continue  # renamed or removed since it was listed
                count += 1
                if count > _MAX_FILES:
                    _LOG.warning("%s holds more than %d images; the rest is ignored", self._folder, _MAX_FILES)
                    return
                yield _printable(path.relative_to(self._folder)), found.st_size, found.st_mtime_ns

    def _image(self, name: str) -> CapturedImage | None:
        """The file as an image; None: it is gone, is being changed, or was taken under another name."""
        seen = self._files_seen.get(name)
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
            return None  # it is being written: wait until it is complete
        digest = sha256_hex(data)
        if digest in self._digests and data:
            self.duplicates += 1
            _LOG.info("%s is skipped: its content was taken before", name)
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
        self._files_seen.pop(name, None)


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
    """The taken files; skips a line that a power cut has cut off."""
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
