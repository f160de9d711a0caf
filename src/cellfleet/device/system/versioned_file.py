"""Numbered, checksummed files ``<stem>-<n>.json``; readers use the newest valid one. No symbolic links, no overwriting.

Readers skip a file that a power cut or the disk has damaged and use the previous one.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellfleet.canonical import canonical_bytes, digest_of
from cellfleet.errors import StorageError
from cellfleet.ports import write_atomic

WriteFn = Callable[[Path, bytes], None]


@dataclass(frozen=True)
class NewestVersion:
    """Content of the newest valid file.

    Attributes:
        number: of the file; 0 when there is none.
        content: plain JSON data; None when there is none.
        damaged: names of newer files that were skipped.
    """

    number: int
    content: Any
    damaged: tuple[str, ...] = ()


FORMAT = 1
"""Format version; a file without one has this format, too."""


class VersionedFile:
    """A value in versioned files of a folder.

    Args:
        folder: created with the first write.
        stem: first part of the names.
        write: writes a file durably; tests pass one that fails.
        keep: number of files to keep.
    """

    def __init__(self, folder: Path, stem: str, write: WriteFn = write_atomic, keep: int = 4) -> None:
        self._folder, self._stem, self._write, self._keep = folder, stem, write, keep
        self._name = re.compile(re.escape(stem) + r"-(\d{1,15})\.json")
        self._last = 0

    def read(self) -> NewestVersion:
        """Read the newest valid file.

        Raises:
            StorageError: a newer program wrote the newest file; an older file must not replace it.
        """
        damaged: list[str] = []
        for number, path in self._files():
            content = _content(path, number)
            if content is not None:
                self._last = max(self._last, number)
                return NewestVersion(number, content, tuple(damaged))
            damaged.append(path.name)
        return NewestVersion(0, None, tuple(damaged))

    def write(self, content: Any) -> int:
        """Write the next file; durable when the call returns. Returns its number.

        Raises:
            StorageError: the disk refuses; the previous file stays the newest.
        """
        files = self._files()
        number = max(self._last, files[0][0] if files else 0) + 1
        facts = {"format_version": FORMAT, "number": number, "content": content, "sha256": digest_of([number, content])}
        self._write(self._folder / f"{self._stem}-{number}.json", canonical_bytes(facts))
        self._last = number
        for _, path in files[self._keep - 1 :]:
            with contextlib.suppress(OSError):
                path.unlink()
        return number

    def _files(self) -> list[tuple[int, Path]]:
        """Newest first."""
        if not self._folder.is_dir():
            return []
        found = ((self._name.fullmatch(p.name), p) for p in self._folder.iterdir())
        return sorted(((int(m[1]), p) for m, p in found if m), reverse=True)


def _content(path: Path, number: int) -> Any:
    """Content of a file; None: it is damaged."""
    try:
        facts = json.loads(path.read_bytes())
        newer = facts.get("format_version", FORMAT) > FORMAT
        valid = facts["number"] == number and facts["sha256"] == digest_of([number, facts["content"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if newer:
        raise StorageError(f"{path} was written by a newer cellfleet", hint="update cellfleet on this instrument")
    return facts["content"] if valid else None
