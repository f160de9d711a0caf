"""Locks between processes: one launcher, one agent, one camera per instrument. The system drops a lock with its process."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cellfleet.errors import DeviceError
from cellfleet.ports import make_dir
from cellfleet.ports.disk import storage_error

_POLL_S = 0.1


@contextlib.contextmanager
def held(
    path: Path,
    who: str,
    wait_s: float = 0.0,
    *,
    hint: str = "stop that one first, or name another HOME",
    monotonic_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock of a file while the block runs.

    Args:
        path: the lock's file; it stays when the lock is given back.
        who: said to others who want it.
        wait_s: patience with another holder, who may be about to end.

    Raises:
        DeviceError: somebody else holds it.
        StorageError: the file cannot be made.
    """
    make_dir(path.parent)
    try:
        file = path.open("a+b")
    except OSError as e:
        raise storage_error("open", path, e) from e
    with file:
        deadline = monotonic_s() + wait_s
        while not _try_lock(file):
            if monotonic_s() >= deadline:
                raise DeviceError(
                    f"{path.parent.parent} is in use by {holder_of(path) or 'another process'}", hint=hint
                )
            sleep(_POLL_S)
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"who": who, "pid": os.getpid()}).encode())
        file.flush()
        try:
            yield
        finally:
            _unlock(file)


def is_held(path: Path) -> bool:
    """Somebody holds the lock now."""
    if not path.exists():
        return False
    with path.open("r+b") as file:
        if not _try_lock(file):
            return True
        _unlock(file)
        return False


def holder_of(path: Path) -> str:
    """Who took the lock last, in words; empty when nobody knows."""
    try:
        facts = json.loads(path.read_bytes())
        return f"{facts['who']} (process {int(facts['pid'])})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # behind the text, which others may then read

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
