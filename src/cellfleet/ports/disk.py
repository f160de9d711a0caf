"""Atomic, durable writes: a reader sees either the old file or the complete new file, even after a power cut.

The order is the usual one: write a temporary file beside the target, fsync it, rename it over the target, fsync the
folder. Only this module calls fsync; other modules call these functions. Operating system errors become StorageError
with a hint on what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cellfleet.errors import StorageError
from cellfleet.ports.temporary_files import part_path, sweep

_HINTS = {
    errno.ENOSPC: "free some space on that disk, or use another folder",
    errno.EDQUOT: "your disk quota is used up; free some space, or use another folder",
    errno.EROFS: "the disk is read-only; use a writable folder",
    errno.EACCES: "you have no permission to write there; change the permissions, or use another folder",
    errno.EPERM: "you have no permission to write there; change the permissions, or use another folder",
    errno.ENOTDIR: "a part of that path is a file, not a folder; use another folder",
    errno.EEXIST: "that name already exists; remove it, or use another folder",
    errno.ENAMETOOLONG: "use a shorter name or folder",
    errno.ENOENT: "check the spelling of the path",
}


def storage_error(action: str, path: Path, cause: OSError) -> StorageError:
    """Translate an OSError into a StorageError with the path and a hint.

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
    """Create a folder and its parents durably; accept an existing folder.

    Raises:
        StorageError: the folder cannot be made, or the path is a file.
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
    """Yield a temporary path beside ``target``; when the block succeeds, rename it to ``target`` durably.

    The temporary name ends with the target's suffix, so that libraries that choose a format by suffix can write to it.
    When the block raises (also on Ctrl-C), the temporary file is removed and ``target`` stays unchanged. The next write
    into that folder removes files that a killed process left.

    Raises:
        StorageError: the write fails.
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
    """Write ``data`` to ``target`` completely or not at all; durable when the call returns.

    Args:
        target: the file; its folder is made if missing.
        data: all of its content.
        mode: permissions before the umask; 0o600 for files that only the owner may read. Set when the file is created.

    Raises:
        StorageError: the write fails; ``target`` is unchanged.
    """
    with atomic_path(target) as part, open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as f:
        f.write(data)


def move_into_place(part: Path, target: Path) -> None:
    """Sync a finished file or folder, then rename it to its target durably.

    Args:
        part: a complete file or folder on the same disk as ``target``.
        target: the new name; an existing file is replaced, a folder with content is not.

    Raises:
        OSError: the sync or the rename fails; ``target`` is unchanged or complete.
    """
    sync(part)
    part.replace(target)
    sync_dir(target.parent)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file, durable when the call returns; a partial line left by a power cut stays a separate line.

    Args:
        path: the file; it and its folder are made if missing.
        line: content without the line feed, which is added.

    Raises:
        StorageError: the write fails.
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
    """Make the content of a file, or of a folder and everything below it, durable; ``sync_dir`` of the parent syncs its name.

    Raises:
        OSError: the sync fails.
    """
    if not path.is_dir():
        with path.open("rb+") as f:
            os.fsync(f.fileno())
        return
    for child in path.iterdir():
        sync(child)
    sync_dir(path)


def sync_dir(path: Path) -> None:
    """Make renames within a folder durable (a no-op on systems without directory sync)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
