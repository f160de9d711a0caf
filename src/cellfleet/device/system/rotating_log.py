"""A log file that is rotated by size; a disk that refuses costs lines of the log, and nothing else."""

from __future__ import annotations

import contextlib
import logging
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 5_000_000
KEPT = 3


class RotatingLog(RotatingFileHandler):
    """Lines appended to ``path``; ``path.1`` is the file before, and so on. Safe to be used by several threads.

    Args:
        path: its folder is made when the first line is written.
        max_bytes: of one file.
        kept: files before the current one that are kept.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=kept, encoding="utf-8", errors="replace", delay=True)

    def write(self, line: str) -> None:
        """Append a line."""
        self.handle(logging.makeLogRecord({"msg": line}))

    def doRollover(self) -> None:  # noqa: N802
        """Begin another file; where files cannot be renamed, the current one grows on."""
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
