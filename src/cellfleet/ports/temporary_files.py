"""Temporary names beside a target, and removal of those that a killed process left.

A name identifies the process that made it: ``.<target>-<machine>.<process>.<random>.part<suffix>``. It is removed when that
process no longer runs on this machine, or when it is older than a day (written by another machine or container, or on Windows).
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shutil
import time
import zlib
from pathlib import Path

PART, OLD = "part", "old"
_MAX_CHARACTERS = 40
"""Of the target's name, so that a name of multi-byte characters stays below the 255 bytes of a file name."""
_STALE_AFTER_S = 24 * 3600.0
_NAME = re.compile(r"\.(.+)-([0-9a-f]{8})\.(\d+)\.[0-9a-f]{8}\.(part|old)(\.\w+)?")
_swept: set[tuple[int, Path]] = set()


def part_path(target: Path, word: str = PART, *, suffix: str = "") -> Path:
    """Make a new hidden name beside a file.

    Args:
        target: the file.
        word: PART for what becomes the target, OLD for what it replaces.
        suffix: at the end of the name.

    Returns:
        The path; nothing is created.
    """
    stem = target.name.removesuffix(suffix)[:_MAX_CHARACTERS]
    return target.with_name(f".{stem}-{_machine()}.{os.getpid()}.{secrets.token_hex(4)}.{word}{suffix}")


def sweep(folder: Path) -> None:
    """Remove files that killed processes left in a folder; runs once per folder and process and never raises.

    A replaced folder (OLD) is renamed back when its replacement is missing.
    """
    key = (os.getpid(), folder)
    if key in _swept:
        return
    _swept.add(key)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name) if entry.name.startswith(".") else None
            if found and _is_stale(found[2], int(found[3]), entry.stat(follow_symlinks=False).st_mtime):
                _remove_or_restore(Path(entry.path), found[1], found[4])


def _remove_or_restore(path: Path, name: str, word: str) -> None:
    target = path.with_name(name)
    if word == OLD and not target.exists():
        if len(name) < _MAX_CHARACTERS:
            path.rename(target)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_stale(machine: str, process: int, modified: float) -> bool:
    return (machine == _machine() and not _is_running(process)) or time.time() - modified > _STALE_AFTER_S


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # cannot be checked without a library; wait a day
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
