"""Atomic, durable writes: a reader sees the old file or the whole new one, also after a power cut.

The order is the usual one: write a temporary file beside the target, fsync it, rename it over the target, fsync the
folder. Errors of the operating system become StorageError with a sentence on what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from cellfleet.errors import StorageError
from cellfleet.ports.parts import part_path, sweep

_HINTS = {
    errno.ENOSPC: "free some space on that disk, or name another folder",
    errno.EDQUOT: "your disk quota is used up; free some space, or name another folder",
    errno.EROFS: "the disk is read-only; name a folder that can be written",
    errno.EACCES: "you may not write there; change the permissions, or name another folder",
    errno.EPERM: "you may not write there; change the permissions, or name another folder",
    errno.ENOTDIR: "a part of that path is a file, not a folder; name another folder",
    errno.EEXIST: "something of that name is in the way; remove it, or name another folder",
    errno.ENAMETOOLONG: "choose a shorter name or folder",
    errno.ENOENT: "check the spelling of the path",
}


def storage_error(action: str, path: Path, cause: OSError) -> StorageError:
    """Translate an OSError into a StorageError that names the path and what to do next."""
    reason = os.strerror(cause.errno) if cause.errno is not None else str(cause)
    hint = _HINTS.get(cause.errno or 0, "check the disk and the path")
    return StorageError(f"cannot {action} {path}: {reason}", hint=hint)


def make_dir(path: Path) -> Path:
    """Create a folder and its parents; an existing folder is fine.

    Raises:
        StorageError: when it cannot be made or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise storage_error("make the folder", path, e) from e
    return path


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; when the block ends well, it becomes ``target`` durably.

    The temporary name keeps the target's suffix at its end, so that libraries that choose a format by suffix can write
    to it. When the block raises (also on Ctrl-C), the temporary file is removed and ``target`` stays as it was; what a
    killed process left is removed by the next write into that folder.

    Raises:
        StorageError: when the disk refuses.
    """
    make_dir(target.parent)
    sweep(target.parent)
    part = part_path(target, suffix=target.suffix)
    try:
        yield part
        with part.open("rb+") as f:
            os.fsync(f.fileno())
        part.replace(target)
        sync_dir(target.parent)
    except OSError as e:
        raise storage_error("write", target, e) from e
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_atomic(target: Path, data: bytes | memoryview, *, mode: int = 0o666) -> None:
    """Write ``data`` to ``target``: all of it or nothing, durable when the call returns.

    Args:
        target: the file; its folder is made when absent.
        data: all of its content.
        mode: permissions, less the umask; 0o600 for what only the owner may read, from the first byte on.

    Raises:
        StorageError: when the disk refuses; ``target`` is then as it was before.
    """
    with atomic_path(target) as part, open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as f:
        f.write(data)


def sync_dir(path: Path) -> None:
    """Make renames within a folder durable (a no-op where the system has no such thing)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
