"""Atomic, durable writes: a reader sees the old file or the whole new one, also after a power cut.

The order is the usual one: write a temporary file beside the target, fsync it, rename it over the target, fsync the
folder. It stands here alone: other modules call these functions and no fsync of their own. Errors of the operating system
become StorageError with a sentence on what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
    """Translate an OSError into a StorageError that names the path and what to do next.

    Args:
        action: what failed, such as ``write``.
        path: the file or folder.
        cause: the error of the operating system.

    Returns:
        The error to raise.
    """
    reason = os.strerror(cause.errno) if cause.errno is not None else str(cause)
    hint = _HINTS.get(cause.errno or 0, "check the disk and the path")
    return StorageError(f"cannot {action} {path}: {reason}", hint=hint)


def make_dir(path: Path) -> Path:
    """Create a folder and its parents, durably; an existing folder is fine.

    Raises:
        StorageError: when it cannot be made or is a file.
    """
    try:
        new = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:
            sync_dir(folder.parent)
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
        move_into_place(part, target)
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


def move_into_place(part: Path, target: Path) -> None:
    """Give a finished file or folder its name, durably: first its content is synced, then it is renamed.

    Args:
        part: a file or folder, complete, on the same disk as ``target``.
        target: the name; a file there is replaced, a folder with content is not.

    Raises:
        OSError: the disk refuses; ``target`` is as it was, or whole.
    """
    sync(part)
    part.replace(target)
    sync_dir(target.parent)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, durable when the call returns; a line that a power cut left half stays a line of its own.

    Args:
        path: the file; it and its folder are made when absent.
        line: without the line feed, which ends it.

    Raises:
        StorageError: when the disk refuses.
    """
    make_dir(path.parent)
    try:
        new = not path.exists()
        with path.open("ab+") as f:
            f.write((b"" if _ends_line(f) else b"\n") + line + b"\n")
            f.flush()
            os.fsync(f.fileno())
        if new:
            sync_dir(path.parent)
    except OSError as e:
        raise storage_error("write", path, e) from e


def _ends_line(f: BinaryIO) -> bool:
    if f.seek(0, os.SEEK_END) == 0:
        return True
    f.seek(-1, os.SEEK_END)
    return f.read(1) == b"\n"


def sync(path: Path) -> None:
    """Make the content of a file, or of a folder and all below it, durable; its own name is so after ``sync_dir``.

    Raises:
        OSError: the disk refuses.
    """
    if not path.is_dir():
        with path.open("rb+") as f:
            os.fsync(f.fileno())
        return
    for child in path.iterdir():
        sync(child)
    sync_dir(path)


def sync_dir(path: Path) -> None:
    """Make renames within a folder durable (a no-op where the system has no such thing)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
