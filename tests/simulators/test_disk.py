"""What a simulated disk must show: a sync that is missing, one that comes too late, a name that outruns its content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from simulators.disk import SURVIVES, CachingDisk, PowerCut, Survived, every_cut


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def good(folder: Path) -> None:
    (folder / "part").write_bytes(b"whole")
    sync(folder / "part")
    (folder / "part").rename(folder / "file")
    sync(folder)


def no_sync_of_the_file(folder: Path) -> None:
    (folder / "part").write_bytes(b"whole")
    (folder / "part").rename(folder / "file")
    sync(folder)


def no_sync_of_the_folder(folder: Path) -> None:
    (folder / "part").write_bytes(b"whole")
    sync(folder / "part")
    (folder / "part").rename(folder / "file")


def name_before_content(folder: Path) -> None:
    (folder / "part").write_bytes(b"whole")
    (folder / "part").rename(folder / "file")
    sync(folder / "file")
    sync(folder)


def not_flushed(folder: Path) -> None:
    with (folder / "part").open("wb") as f:
        f.write(b"whole")
        os.fsync(f.fileno())
    (folder / "part").rename(folder / "file")
    sync(folder)


def wrong(folder: Path, survived: Survived) -> bool:
    file = folder / "file"
    return file.read_bytes() != b"whole" if file.exists() else survived.done


def test_the_usual_order_is_seen_and_survives(tmp_path: Path) -> None:
    with CachingDisk(tmp_path) as disk:
        good(tmp_path)
    assert disk.log() == ["sync part", "rename part -> file", "sync folder ."]
    (tmp_path / "file").unlink()
    cuts = [(s, wrong(tmp_path, s)) for s in every_cut(tmp_path, lambda: good(tmp_path))]
    assert [s for s, is_wrong in cuts if is_wrong] == []
    assert len(cuts) == 4 * len(SURVIVES)
    assert sum(s.done for s, _ in cuts) == len(SURVIVES)


@pytest.mark.parametrize("fault", [no_sync_of_the_file, no_sync_of_the_folder, name_before_content, not_flushed])
def test_each_fault_is_seen(tmp_path: Path, fault: Callable[[Path], None]) -> None:
    assert any(wrong(tmp_path, s) for s in every_cut(tmp_path, lambda: fault(tmp_path)))


def test_what_was_synced_before_stays_until_the_change_is_synced(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"old")
    with CachingDisk(tmp_path) as disk:
        (tmp_path / "old").unlink()
        (tmp_path / "new").write_bytes(b"new")  # may get the inode that is free now
        sync(tmp_path / "new")
        shutil.rmtree(tmp_path / "folder")
    assert disk.log() == ["remove old", "sync new", "remove folder/file", "remove folder folder"]
    disk.power_on()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["folder", "folder/file", "old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_a_new_folder_needs_a_sync_of_its_parent(tmp_path: Path) -> None:
    with CachingDisk(tmp_path) as disk:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").write_bytes(b"x")
        sync(tmp_path / "new" / "file")
        sync(tmp_path / "new")
    disk.power_on()
    assert list(tmp_path.iterdir()) == []


def test_after_the_cut_nothing_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def act() -> None:
        try:
            os.rename(tmp_path / "file", tmp_path / "other")  # noqa: PTH104
        finally:
            (tmp_path / "file").unlink()

    with CachingDisk(tmp_path) as disk:
        disk.cut_at(1, "all")
        with pytest.raises(PowerCut):
            act()
    disk.power_on()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert disk.steps == []


def test_what_sqlite_syncs_and_what_lies_elsewhere_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    with CachingDisk(tmp_path / "watched") as disk:
        (tmp_path / "watched" / "spool.db").write_bytes(b"tables")
        (tmp_path / "elsewhere").write_bytes(b"x")
        (tmp_path / "elsewhere").unlink()
    assert disk.steps == []
    disk.power_on()
    assert (tmp_path / "watched" / "spool.db").read_bytes() == b"tables"
