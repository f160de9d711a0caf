"""Locks between processes: one launcher, one agent, one camera per instrument. A lock ends with its process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cellfleet.errors import DeviceError
from cellfleet.ports import make_dir
from cellfleet.ports.disk import storage_error


@contextlib.contextmanager
def held(
    path: Path, who: str, wait_s: float = 0.0, *, hint: str = "stop that process first, or name another HOME"
) -> Iterator[None]:
    """Hold the lock of a file while the block runs.

    Args:
        path: the lock file, ``HOME/state/<name>.lock``; ``<name>.holder`` beside it names the holder.
        who: name of this program, for ``<name>.holder``.
        wait_s: how long to wait for another holder to end; 0: not at all.
        hint: of the error.

    Raises:
        DeviceError: another process holds it.
        StorageError: the file cannot be created or locked.
    """
    make_dir(path.parent)
    lock = _lock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as e:
        raise DeviceError(f"{path.parent.parent} is in use by {holder_of(path) or 'another process'}", hint=hint) from e
    except OSError as e:
        raise storage_error("lock", path, e) from e
    try:
        with contextlib.suppress(OSError):  # the name is only displayed; the lock works without it
            _holder_file(path).write_text(json.dumps({"who": who, "pid": os.getpid()}), encoding="utf-8")
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now."""
    if not path.exists():
        return False
    try:
        with _lock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def holder_of(path: Path) -> str:
    """The latest holder, for display; empty: unknown."""
    for file in (_holder_file(path), path):  # cellfleet 0.1 wrote it into the lock's file
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads(file.read_bytes())
            return f"{facts['who']} (process {int(facts['pid'])})"
    return ""


def _lock(path: Path) -> FileLock:
    """A lock of the operating system. No fallback to marker files, which would remain after a crash."""
    return FileLock(path, thread_local=False, fallback_to_soft=False)


def _holder_file(path: Path) -> Path:
    """A separate file, because on Windows a locked file cannot be read."""
    return path.with_suffix(".holder")
