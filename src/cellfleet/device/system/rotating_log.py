"""A log file that is rotated by size; a disk that refuses costs lines of the log, and nothing else."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import IO

MAX_BYTES = 5_000_000
KEPT = 3


class RotatingLog:
    """Lines appended to ``path``; ``path.1`` is the file before, and so on. Safe to be used by several threads."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path, self._max_bytes, self._kept = path, max_bytes, kept
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None

    def write(self, line: str) -> None:
        """Append a line."""
        with self._lock, contextlib.suppress(OSError):
            file = self._open()
            file.write(line.encode("utf-8", "replace") + b"\n")
            file.flush()

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        with self._lock, contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
            self._file = None

    def _open(self) -> IO[bytes]:
        if self._file is not None and self._file.tell() >= self._max_bytes:
            self._file.close()
            self._file = None
            self._rotate()
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        return self._file

    def _rotate(self) -> None:
        for number in range(self._kept, 1, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
