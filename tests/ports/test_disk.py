"""All or nothing on the disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cellfleet.errors import StorageError
from cellfleet.ports import atomic_path, make_dir, write_atomic
from cellfleet.ports.disk import append_line, move_into_place
from cellfleet.ports.temporary_files import part_path, sweep
from simulators.disk import every_cut


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "größe 細胞.txt"
    write_atomic(target, b"one")
    write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, b"old")

    def write_and_fail() -> None:
        with atomic_path(target) as part:
            part.write_bytes(b"half")
            raise failure

    with pytest.raises(failure):
        write_and_fail()
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x.png") as part:
        assert part.suffix == ".png"
        assert part.parent == tmp_path
        part.write_bytes(b"")


def test_a_folder_in_the_way_of_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        make_dir(tmp_path / "f" / "below")
    assert str(tmp_path / "f" / "below") in str(caught.value)
    assert caught.value.hint


FULL = """
import resource, signal, sys
from pathlib import Path
from cellfleet.ports import write_atomic
from cellfleet.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"x" * 5000)
except StorageError as e:
    sys.stdout.write(str(e))
"""


def test_a_disk_that_takes_no_more_leaves_the_old_file(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE  # the limit stands in for a full disk: a write fails half-way
    target = tmp_path / "a.bin"
    write_atomic(target, b"old")
    done = subprocess.run([sys.executable, "-c", FULL, str(target)], capture_output=True, text=True, check=True)
    assert f"cannot write {target}: File too large" in done.stdout
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


KILLED = """
import os, signal, sys
from pathlib import Path
from cellfleet.ports import atomic_path
with atomic_path(Path(sys.argv[1])) as part:
    part.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
SWEEP = "import sys\nfrom pathlib import Path\nfrom cellfleet.ports.temporary_files import sweep\nsweep(Path(sys.argv[1]))\n"


def swept(folder: Path) -> list[str]:
    """The names in a folder after another process swept it."""
    subprocess.run([sys.executable, "-c", SWEEP, str(folder)], check=True)
    return sorted(p.name for p in folder.iterdir())


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    write_atomic(tmp_path / "größe 細胞.txt", b"whole")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "größe 細胞.txt")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert swept(tmp_path) == ["größe 細胞.txt"]
    assert (tmp_path / "größe 細胞.txt").read_bytes() == b"whole"


def test_parts_of_living_processes_and_other_files_stay(tmp_path: Path) -> None:
    mine = part_path(tmp_path / "a.txt", suffix=".txt")
    others = [".b.part.txt", ".hidden-0123abcd.part", "c-01234567.1.01234567.part"]
    for name in (mine.name, *others):
        (tmp_path / name).write_bytes(b"")
    assert swept(tmp_path) == sorted([mine.name, *others])
    day_before_yesterday = mine.stat().st_mtime - 2 * 24 * 3600
    os.utime(mine, (day_before_yesterday, day_before_yesterday))
    assert swept(tmp_path) == sorted(others)
    sweep(tmp_path / "absent")


def test_a_folder_set_aside_is_put_back_when_its_successor_never_came(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom cellfleet.ports.temporary_files import *\nt = Path(sys.argv[1])\n"
    )
    code += "part_path(t / 'x').mkdir()\n(t / 'x').rename(part_path(t / 'x', OLD))\n"
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "good").write_bytes(b"")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert swept(tmp_path) == ["x"]
    assert (tmp_path / "x" / "good").is_file()


def test_names_of_many_long_letters_fit(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("細" * 80 + ".tif"), b"x")
    assert len(list(tmp_path.iterdir())) == 1


# --- after a power cut


def test_a_written_file_is_the_old_one_or_the_whole_new_one(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")
    for survived in every_cut(tmp_path, lambda: write_atomic(target, b"new")):
        assert target.read_bytes() == b"new" or (not survived.done and target.read_bytes() == b"old"), survived


def test_a_new_folder_and_what_was_written_there_are_durable(tmp_path: Path) -> None:
    target = tmp_path / "one" / "two" / "a.txt"
    for survived in every_cut(tmp_path, lambda: write_atomic(target, b"new")):
        assert target.read_bytes() == b"new" if target.exists() else not survived.done, survived


def test_a_folder_moves_into_place_with_all_that_is_in_it(tmp_path: Path) -> None:
    part, target = tmp_path / "part", tmp_path / "whole"

    def act() -> None:
        (part / "sub").mkdir(parents=True)
        (part / "a").write_bytes(b"a")
        (part / "sub" / "b").write_bytes(b"b")
        move_into_place(part, target)

    for survived in every_cut(tmp_path, act):
        if target.exists():
            assert ((target / "a").read_bytes(), (target / "sub" / "b").read_bytes()) == (b"a", b"b"), survived
        else:
            assert not survived.done, survived


def test_a_line_that_was_added_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lines"

    def act() -> None:
        append_line(path, b"one")
        append_line(path, b"two")

    for survived in every_cut(tmp_path, act):
        left = path.read_bytes() if path.exists() else b""
        assert left == b"one\ntwo\n" if survived.done else left in (b"", b"one\n", b"one\ntwo\n"), survived


def test_a_half_line_stays_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\nha")
    append_line(path, b"two")
    assert path.read_bytes() == b"one\nha\ntwo\n"
