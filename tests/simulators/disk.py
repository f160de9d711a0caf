"""Simulated disks whose power can be cut.

``Disk`` counts atomic writes and cuts the power at the n-th one. It is quick: nothing is synced.

``CachingDisk`` is a folder on a disk with a write cache. It sees every sync, rename, link, removal and new folder that any
code does below the folder, and knows what survives a power cut: only what was synced. To see the order of the steps::

    with CachingDisk(tmp_path) as disk:
        download(...)
    assert disk.log() == ["sync a.part", "rename a.part -> a", "sync folder ."]

To cut the power before each step and after the last one (``survived.done``: the action had returned, so all that it
promises must be there)::

    for survived in every_cut(tmp_path, lambda: take(source, target, into)):
        assert right(into) or (not survived.done and not into.exists())

Each cut is made three times, because disks differ (``Survives``):

- ``synced``: only synced content under synced names is left. Finds a sync that is missing.
- ``names``: every name is left, but of the content only what was synced. Finds a rename before the sync of the content.
- ``all``: everything is left as it lies. This is the process killed, not the machine.

What SQLite writes is synced by SQLite, unseen from Python: files that match ``SYNCED_ELSEWHERE`` are kept as they lie.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import itertools
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Moment = Literal["before", "after", "torn"]
MOMENTS: tuple[Moment, ...] = ("before", "after", "torn")
Survives = Literal["synced", "names", "all"]
SURVIVES: tuple[Survives, ...] = ("synced", "names", "all")
SYNCED_ELSEWHERE = ("*.db", "*.db-wal", "*.db-shm", "*.db-journal")
_STEPS = {"fsync": "sync", "replace": "rename", "rename": "rename", "link": "link", "unlink": "remove", "remove": "remove",
          "rmdir": "remove folder", "mkdir": "make folder"}  # fmt: skip
_TWO_PATHS = ("replace", "rename", "link")


class PowerCut(BaseException):
    """The machine is off; nothing catches that."""


class Disk:
    """Atomic writes, counted.

    Attributes:
        writes: names of the files written so far.
    """

    def __init__(self) -> None:
        self.writes: list[str] = []
        self._cut_at = 0
        self._moment: Moment = "before"

    def cut_at(self, number: int, moment: Moment) -> None:
        """Cut the power at that write from now on (1: the next one); 0: never."""
        self._cut_at = len(self.writes) + number if number else 0
        self._moment = moment

    def write(self, target: Path, data: bytes) -> None:
        """As ``ports.write_atomic``, without syncing."""
        self.writes.append(target.name)
        cut = len(self.writes) == self._cut_at
        if cut and self._moment == "before":
            raise PowerCut(target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if cut and self._moment == "torn" and not target.exists():
            target.write_bytes(data[: len(data) // 2])  # a disk that renamed before it wrote
            raise PowerCut(target.name)
        part = target.with_name(f".{target.name}.new")
        part.write_bytes(data)
        part.replace(target)
        if cut:
            raise PowerCut(target.name)


@dataclass(frozen=True)
class _File:
    mode: int
    data: bytes

    @staticmethod
    def read(path: Path) -> _File:
        return _File(stat.S_IMODE(path.stat().st_mode), path.read_bytes())


_Tree = dict[str, "_File | _Tree"]
"""A folder: names, and what they hold."""


@dataclass(frozen=True)
class Step:
    """Something that was done to the disk; paths are relative to the folder."""

    kind: str
    path: str
    to: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" + (f" -> {self.to}" if self.to else "")


class CachingDisk:
    """A folder whose unsynced changes a power cut takes back; watched while the ``with`` block runs.

    What lies in the folder when the block begins counts as synced. One disk at a time in a process.

    Attributes:
        steps: what was done so far below the folder, by any thread.
    """

    def __init__(self, root: Path) -> None:
        self.steps: list[Step] = []
        self._root = root.resolve()
        self._lock = threading.RLock()
        self._real: dict[str, Callable[..., Any]] = {}
        self._cut_at = 0
        self._survives: Survives = "synced"
        self._left: _Tree | None = None
        # The file system uses an inode again once it is free; these numbers are used once.
        self._numbers, self._count = dict[int, int](), itertools.count()
        self._files: dict[int, _File] = {}  # content at the last sync
        self._folders: dict[int, dict[str, tuple[int, bool]]] = {}  # names at the last sync: number, is it a folder?

    def log(self) -> list[str]:
        """The steps, one string each."""
        return [str(s) for s in self.steps]

    def cut_at(self, number: int, survives: Survives) -> None:
        """Cut the power before that step from now on (1: the next one)."""
        self._cut_at, self._survives = len(self.steps) + number, survives

    def power_on(self, survives: Survives = "synced") -> None:
        """Lay in the folder what the cut left; where there was none, the power is cut now. Call it after the block."""
        assert not self._real, "the block ends first"
        _lay(self._root, self._remaining(survives) if self._left is None else self._left)

    def __enter__(self) -> CachingDisk:
        for folder, _, files in os.walk(self._root):
            self._keep_folder(Path(folder))
            for name in files:
                self._keep_file(Path(folder) / name)
        self._real = {name: getattr(os, name) for name in _STEPS}
        for name in _STEPS:
            setattr(os, name, functools.partial(self._call, name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        self._real = {}

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        with self._lock:
            paths = self._paths(name, args, options)
            if not paths:
                return self._real[name](*args, **options)
            folder = name == "fsync" and paths[0].is_dir()
            self._begin(Step("sync folder" if folder else _STEPS[name], *(_short(p, self._root) for p in paths)))
            if name == "fsync":
                return self._keep_folder(paths[0]) if folder else self._keep_file(paths[0])
            freed = None if name in ("link", "mkdir") else _freed(paths[-1])
            done = self._real[name](*args, **options)
            self._numbers.pop(freed or 0, None)
            return done

    def _begin(self, step: Step) -> None:
        if self._left is None and len(self.steps) + 1 == self._cut_at:
            self._left = self._remaining(self._survives)
        if self._left is not None:  # also for what a ``finally`` does after the cut
            raise PowerCut(str(step))
        self.steps.append(step)

    def _paths(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> list[Path]:
        """The paths of a call; none: it is about something outside of the folder."""
        if name == "fsync":
            found = self._path_of(args[0])
            return [found] if found else []
        beside = options.get("dir_fd")
        base = Path.cwd() if beside is None else self._path_of(beside)
        if base is None:
            return []
        paths = [Path(os.path.normpath(base / os.fsdecode(p))) for p in args[: 2 if name in _TWO_PATHS else 1]]
        return paths if all(p.is_relative_to(self._root) for p in paths) else []

    def _path_of(self, descriptor: int) -> Path | None:
        wanted = os.fstat(descriptor).st_ino
        every = itertools.chain([self._root], self._root.rglob("*"))
        return next((p for p in every if p.lstat().st_ino == wanted), None)

    def _number(self, path: Path) -> int:
        inode = path.lstat().st_ino
        if inode not in self._numbers:
            self._numbers[inode] = next(self._count)
        return self._numbers[inode]

    def _keep_file(self, path: Path) -> None:
        self._files[self._number(path)] = _File.read(path)

    def _keep_folder(self, path: Path) -> None:
        self._folders[self._number(path)] = {p.name: (self._number(p), p.is_dir()) for p in path.iterdir()}

    def _remaining(self, survives: Survives) -> _Tree:
        if survives == "synced":
            return self._synced(self._root, self._number(self._root))
        return self._lying(self._root, survives == "all")

    def _lying(self, folder: Path, whole: bool) -> _Tree:
        out: _Tree = {}
        for path in folder.iterdir():
            if path.is_dir():
                out[path.name] = self._lying(path, whole)
            elif whole or _synced_elsewhere(path):
                out[path.name] = _File.read(path)
            else:
                out[path.name] = self._files.get(self._number(path), _File(0o600, b""))
        return out

    def _synced(self, folder: Path, number: int) -> _Tree:
        out: _Tree = {}
        for name, (child, is_folder) in self._folders.get(number, {}).items():
            synced = self._files.get(child, _File(0o600, b""))
            out[name] = self._synced(folder / name, child) if is_folder else synced
        elsewhere = [p for p in folder.iterdir() if _synced_elsewhere(p)] if folder.is_dir() else []
        return {n: v for n, v in out.items() if not _synced_elsewhere(Path(n))} | {
            p.name: _File.read(p) for p in elsewhere
        }


@dataclass(frozen=True)
class Survived:
    """A power cut that a folder has just survived.

    Attributes:
        survives: what the disk kept.
        steps: what was done before the power went.
        done: the action had returned.
    """

    survives: Survives
    steps: tuple[Step, ...]
    done: bool

    def __str__(self) -> str:
        return f"{self.survives} survives after: {', '.join(map(str, self.steps)) or 'nothing'}"


def every_cut(root: Path, act: Callable[[], object]) -> Iterator[Survived]:
    """Do something again and again from the same start, the power cut before each step and after the last one.

    Args:
        root: the folder; holds the start, and at each turn what the cut left.
        act: what is done; does the same steps each time.
    """
    start = _tree(root)
    for survives in SURVIVES:
        for number in itertools.count(1):
            _lay(root, start)
            done = False
            with CachingDisk(root) as disk:
                disk.cut_at(number, survives)
                with contextlib.suppress(PowerCut):
                    act()
                    done = True
            disk.power_on(survives)
            yield Survived(survives, tuple(disk.steps), done)
            if done:
                break
    _lay(root, start)


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _synced_elsewhere(path: Path) -> bool:
    return any(fnmatch.fnmatch(path.name, p) for p in SYNCED_ELSEWHERE)


def _freed(path: Path) -> int | None:
    """The inode that is free when the last name of a file goes."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1 else None


def _tree(folder: Path) -> _Tree:
    return {p.name: _tree(p) if p.is_dir() else _File.read(p) for p in folder.iterdir()}


def _lay(folder: Path, tree: _Tree) -> None:
    """Make a folder hold that and nothing else."""
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, found in tree.items():
        path = folder / name
        if isinstance(found, _File):
            path.write_bytes(found.data)
            path.chmod(found.mode)
        else:
            path.mkdir()
            _lay(path, found)
