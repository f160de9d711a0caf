"""A log file that is rotated by size. When the disk fails, log lines are lost, and nothing else."""

from __future__ import annotations

import contextlib
import logging
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 5_000_000
KEPT = 3


class RotatingLog(RotatingFileHandler):
    """Appends lines to ``path``; ``path.1`` is the previous file, and so on. Thread-safe.

    Args:
        path: its folder is created with the first line.
        max_bytes: of one file.
        kept: number of previous files to keep.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=kept, encoding="utf-8", errors="replace", delay=True)

    def write(self, line: str) -> None:
        """Append a line."""
        self.handle(logging.makeLogRecord({"msg": line}))

    def doRollover(self) -> None:  # noqa: N802
        """Begin another file; where files cannot be renamed, the current one continues to grow."""
        with contextlib.suppress(OSError):
            super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Lose the line."""

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        with contextlib.suppress(OSError):
            super().close()

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()
