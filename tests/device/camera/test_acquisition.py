"""The camera: nothing lost, nothing doubled, whatever stops it; a full disk, a hold, leases, experiments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cellfleet.canonical import sha256_file
from cellfleet.config import load_project
from cellfleet.device.camera.acquisition import HOLD, Camera, CameraView
from cellfleet.device.camera.frame_store import FrameFile, FramesFolder
from cellfleet.device.camera.heartbeat import read_camera
from cellfleet.device.camera.inhibit_lease import read_leases
from cellfleet.device.camera.process import open_source
from cellfleet.device.system.home import Home
from cellfleet.device.system.versioned_file import WriteFn
from cellfleet.errors import StorageError
from cellfleet.ports import FixedClock, write_atomic
from cellfleet.wire.reason import english
from support_images import scene, write_png, write_tiff
from support_waiting import PATIENCE_S, wait_until

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass
class Box:
    """A camera whose clock and disk the test moves."""

    home: Home
    settings: list[str]
    clock: FixedClock = field(default_factory=lambda: FixedClock(START))
    free_mb: float = 1e6
    news: list[str] = field(default_factory=list)
    camera: Camera | None = None
    write: WriteFn = write_atomic

    def open(self) -> Camera:
        project = load_project(self.home.root, environ={}, overrides=self.settings)
        self.camera = Camera(
            self.home, project.settings.camera, 100, lambda c: open_source(self.home, project, c, self.clock), self.clock,
            news=self.news.append, free=lambda _path: self.free_mb,
            write=lambda path, data: self.write(path, data),
        )  # fmt: skip
        return self.camera

    def move(self, seconds: float) -> CameraView:
        assert self.camera is not None
        self.clock.at += timedelta(seconds=seconds)
        self.clock.elapsed_s += seconds
        return self.camera.step()

    def run(self, seconds: float, step_s: float = 1.0) -> CameraView:
        look = self.move(0)
        for _ in range(int(seconds / step_s)):
            look = self.move(step_s)
        return look

    @property
    def folder(self) -> FramesFolder:
        return FramesFolder(self.home.frames)

    def frames(self) -> list[FrameFile]:
        return [self.folder.frame(e, f) for e in self.folder.names() for f in self.folder.frame_names(e)]


MakeBox = Callable[..., Box]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i in range(6):
        write_tiff(tmp_path / "source" / f"cells {i + 1}.tif", scene(i)[0])
    return tmp_path / "source"


@pytest.fixture
def make(tmp_path: Path) -> MakeBox:
    def new(source: Path, *settings: str, kind: str = "replay") -> Box:
        home = Home.at(tmp_path / "home")
        home.root.mkdir(exist_ok=True)
        base = [f"camera.kind={kind}", f"camera.source={source}", "camera.interval_s=10"]
        return Box(home, [*base, *settings])

    return new


def check(frames: list[FrameFile], home: Home) -> None:
    """Raw bytes are whole, indexes have no gap, positions none either."""
    for frame in frames:
        raw = home.frames / frame.taken.experiment / frame.file
        assert sha256_file(raw) == frame.taken.sha256
        assert raw.stat().st_size == frame.taken.bytes
    assert [f.position for f in frames] == list(range(len(frames)))
    for name in {f.taken.experiment for f in frames}:
        own = [f.taken.index for f in frames if f.taken.experiment == name]
        assert own == list(range(len(own)))


class TestReplay:
    def test_experiments_of_so_many_frames_on_a_timer(self, make: MakeBox, images: Path) -> None:
        box = make(images, "camera.frames_per_experiment=4", 'camera.wells=["A1","B2"]')
        box.open()
        box.run(95)
        frames = box.frames()
        check(frames, box.home)
        assert len(frames) == 10
        assert [f.original for f in frames[:7]] == [f"cells {i % 6 + 1}.tif" for i in range(7)]
        assert [f.taken.well for f in frames[:4]] == ["A1", "B2", "A1", "B2"]
        assert [f.taken.time_s for f in frames[:5]] == [0, 10, 20, 30, 0]
        experiments = [box.folder.read(e) for e in box.folder.names()]
        assert [e.number for e in experiments] == [1, 2, 3]
        assert [e.ended_at is None for e in experiments] == [False, False, True]

    def test_an_index_tells_times_and_wells(self, make: MakeBox, tmp_path: Path) -> None:
        root = tmp_path / "set"
        rows = ["file,well,field,time_s,pixel_size_um"]
        for i, (well, time_s) in enumerate([("B2", 0), ("A1", 600), ("A1", 0), ("B2", 600)]):
            write_tiff(root / "images" / f"{i}.tif", scene(i)[0])
            rows.append(f"{i}.tif,{well},f02,{time_s},0.65")
        (root / "index.csv").write_text("\n".join(rows), encoding="utf-8")
        box = make(root, "camera.frames_per_experiment=6")
        box.open()
        box.run(52)
        frames = box.frames()
        assert [f.taken.well for f in frames] == ["A1", "B2", "A1", "B2", "A1", "B2"]
        assert [f.taken.time_s for f in frames] == [0, 0, 600, 600, 1200, 1200]
        assert {f.taken.field for f in frames} == {2}
        assert {f.pixel_size_um for f in frames} == {0.65}

    def test_max_frames_and_no_loop_end_it(self, make: MakeBox, images: Path) -> None:
        box = make(images, "camera.max_frames=3")
        box.open()
        assert box.run(60).state == "stopped"
        assert len(box.frames()) == 3
        assert box.folder.read(box.folder.names()[0]).ended_at is not None
        box.settings[-1:] = ["camera.max_frames=0", "camera.loop=false"]
        box.open()
        assert box.run(100).state == "stopped"
        check(box.frames(), box.home)
        assert len(box.frames()) == 6

    @pytest.mark.parametrize("at", range(14))
    def test_a_kill_at_every_write(self, make: MakeBox, images: Path, at: int) -> None:
        """The n-th write never happens and nothing after it; the next start goes on as if nothing had been."""
        box = make(images, "camera.frames_per_experiment=3", "camera.inhibit_updates=true")
        box.open()
        writes = 0

        def write(path: Path, data: bytes) -> None:
            nonlocal writes
            writes += 1
            if writes > at:
                raise KeyboardInterrupt
            write_atomic(path, data)

        box.write = write
        with pytest.raises(KeyboardInterrupt):
            box.run(200)
        box.write = write_atomic
        box.open()
        box.run(100)
        frames = box.frames()
        check(frames, box.home)
        assert len(frames) > at // 3
        names = box.folder.names()
        assert len({box.folder.read(e).number for e in names}) == len(names)
        assert sum(box.folder.read(e).ended_at is None for e in names) <= 1

    def test_a_restart_keeps_the_interval(self, make: MakeBox, images: Path) -> None:
        box = make(images)
        box.open()
        box.run(3)
        box.open()
        box.run(6)
        assert len(box.frames()) == 1
        box.run(2)
        assert len(box.frames()) == 2

    def test_a_disk_that_is_nearly_full(self, make: MakeBox, images: Path) -> None:
        box = make(images)
        box.open()
        box.run(15)
        for box.free_mb in (70, 60, 50):
            look = box.run(20)
        assert (look.state, len(box.frames())) == ("waiting", 2)
        assert "nearly full: 50 MB free" in english(look.reason)
        box.free_mb = 500
        box.run(15)
        check(box.frames(), box.home)
        assert len(box.frames()) == 4
        assert sum("nearly full" in n for n in box.news) == 1

    def test_a_disk_that_refuses(self, make: MakeBox, images: Path) -> None:
        box = make(images)
        box.open()
        box.run(1)

        def refuse(path: Path, _data: bytes) -> None:
            raise StorageError(f"cannot write {path}: No space left on device", hint="free some space")

        box.write = refuse
        assert box.run(30).state == "waiting"
        box.write = write_atomic
        box.run(1)
        check(box.frames(), box.home)
        assert len(box.frames()) == 2

    def test_a_hold_ends_the_experiment_and_nothing_is_taken(self, make: MakeBox, images: Path) -> None:
        box = make(images, "camera.inhibit_updates=true")
        box.open()
        box.run(15)
        leases, _ = read_leases(box.home.inhibit)
        assert [lease.holder for lease in leases] == ["camera"]
        assert leases[0].expires_at > box.clock.at
        hold = box.home.state / HOLD
        hold.parent.mkdir(exist_ok=True)
        hold.write_text("{}", encoding="utf-8")
        look = box.run(60)
        assert (look.state, look.experiment, len(box.frames())) == ("held", "", 2)
        assert box.folder.read(box.folder.names()[0]).ended_at is not None
        assert read_leases(box.home.inhibit) == ([], [])
        hold.unlink()
        box.run(5)
        assert len(box.folder.names()) == 2

    def test_a_lease_is_renewed(self, make: MakeBox, images: Path) -> None:
        box = make(images, "camera.inhibit_updates=true", "camera.interval_s=500")
        box.open()
        box.run(300)
        assert read_leases(box.home.inhibit)[0][0].expires_at > box.clock.at

    def test_a_source_that_is_not_there_is_told_and_asked_again(self, make: MakeBox, images: Path) -> None:
        away = images.rename(images.with_name("away"))
        box = make(images)
        box.open()
        look = box.run(5)
        assert look.state == "failing"
        assert "is not a folder" in english(look.reason)
        images.mkdir()
        assert "holds no images" in english(box.run(5).reason)
        images.rmdir()
        away.rename(images)
        assert box.run(5).state == "running"
        assert len(box.frames()) == 1


class TestWatched:
    @pytest.fixture
    def box(self, make: MakeBox, tmp_path: Path) -> Box:
        box = make(tmp_path / "incoming", "camera.settle_s=3", "camera.idle_s=60", kind="folder")
        (tmp_path / "incoming").mkdir()
        box.open()
        return box

    @staticmethod
    def incoming(box: Box) -> Path:
        return box.home.root.parent / "incoming"

    def test_a_file_that_is_still_being_written(self, box: Box) -> None:
        whole = write_png(self.incoming(box).parent / "whole.png", scene(1)[0]).read_bytes()
        target = self.incoming(box) / "A02_f03_t001.png"
        for size in range(100, len(whole), 400):
            target.write_bytes(whole[:size])
            box.run(2)
        assert box.frames() == []
        target.write_bytes(whole)
        box.run(5)
        (frame,) = box.frames()
        assert frame.taken.bytes == len(whole)
        assert (frame.taken.well, frame.taken.field) == ("A02", 3)
        assert (box.home.frames / frame.taken.experiment / frame.file).read_bytes() == whole
        assert target.exists()

    def test_renamed_copied_twice_and_changed(self, box: Box) -> None:
        folder = self.incoming(box)
        part = write_png(folder / "x.png", scene(1)[0]).rename(folder / "x.png.part")
        box.run(10)
        assert box.frames() == []
        part.rename(folder / "x.png")
        box.run(10)
        assert len(box.frames()) == 1
        (folder / "copy of x.png").write_bytes((folder / "x.png").read_bytes())
        (folder / "x.png").rename(folder / "y.png")
        box.run(10)
        assert len(box.frames()) == 1
        write_png(folder / "y.png", scene(2)[0])
        box.run(10)
        check(box.frames(), box.home)
        assert len(box.frames()) == 2

    @pytest.mark.parametrize(
        "name",
        [
            "Zellen über Nacht.png",
            "細胞 1.png",
            "..png.png",
            "a;rm -rf ~.png",
            "x" * 200 + ".PNG",
            "con.tif",
            "a\nb.png",
        ],
    )
    def test_odd_names(self, box: Box, name: str) -> None:
        write_png(self.incoming(box) / name, scene(1)[0])
        box.run(10)
        if name.startswith("."):
            assert box.frames() == []  # hidden files are not meant for others
            return
        (frame,) = box.frames()
        assert frame.original == name
        assert frame.file.isascii()
        assert (box.home.frames / frame.taken.experiment / frame.file).is_file()
        assert "/" not in frame.taken.frame

    @pytest.mark.skipif(os.name == "nt", reason="such a name cannot be made there")
    def test_a_name_that_is_no_text(self, box: Box) -> None:
        write_png(self.incoming(box) / "x.png", scene(1)[0]).rename(self.incoming(box) / os.fsdecode(b"\xff\xfe.png"))
        box.run(10)
        assert len(box.frames()) == 1
        box.open()
        box.run(10)
        assert len(box.frames()) == 1

    def test_links_and_other_files_are_passed_over(self, box: Box, tmp_path: Path) -> None:
        secret = write_png(tmp_path / "elsewhere" / "secret.png", scene(1)[0])
        (self.incoming(box) / "link.png").symlink_to(secret)
        (self.incoming(box) / "folder").symlink_to(secret.parent)
        (self.incoming(box) / "notes.txt").write_text("x", encoding="utf-8")
        box.run(10)
        assert box.frames() == []

    def test_folders_below_and_bytes_that_are_no_image(self, box: Box) -> None:
        folder = self.incoming(box) / "run 1"
        folder.mkdir()
        (folder / "empty.tif").write_bytes(b"")
        (folder / "other.png").write_bytes(b"<html>")
        (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 and so on")
        box.run(10)
        frames = box.frames()
        check(frames, box.home)
        problems = {f.original: f.taken.problem for f in frames}
        assert "0 bytes" in problems["run 1/empty.tif"]
        assert "neither TIFF nor PNG" in problems["run 1/other.png"]
        assert "JPEG" in problems["run 1/photo.jpg"]

    def test_an_experiment_ends_when_nothing_comes(self, box: Box) -> None:
        write_png(self.incoming(box) / "1.png", scene(1)[0])
        box.run(30)
        assert box.folder.read(box.folder.names()[0]).ended_at is None
        box.run(60)
        assert box.folder.read(box.folder.names()[0]).ended_at is not None
        write_png(self.incoming(box) / "2.png", scene(2)[0])
        box.run(10)
        assert len(box.folder.names()) == 2

    @pytest.mark.parametrize("at", range(8))
    def test_a_kill_at_every_write(self, box: Box, at: int) -> None:
        for i in range(4):
            write_png(self.incoming(box) / f"{i}.png", scene(i)[0])
        writes = 0

        def write(path: Path, data: bytes) -> None:
            nonlocal writes
            writes += 1
            if writes > at:
                raise KeyboardInterrupt
            write_atomic(path, data)

        box.write = write
        with pytest.raises(KeyboardInterrupt):
            box.run(20)
        box.write = write_atomic
        box.open()
        box.run(20)
        frames = box.frames()
        assert sorted(f.original for f in frames) == [f"{i}.png" for i in range(4)]
        assert [f.taken.index for f in frames] == list(range(4))

    def test_a_kill_before_the_journal_was_written(self, box: Box) -> None:
        for i in range(3):
            write_png(self.incoming(box) / f"{i}.png", scene(i)[0])
        box.run(20)
        journal = box.home.state / "watched.jsonl"
        lines = journal.read_bytes().split(b"\n")
        journal.write_bytes(b"\n".join(lines[:-1]) + b"\n" + lines[-1][:20])
        box.open()
        box.run(20)
        assert len(box.frames()) == 3
        write_png(self.incoming(box) / "new.png", scene(9)[0])
        box.run(20)
        assert len(box.frames()) == 4


class TestProcess:
    """The real process: heartbeat, its parent's end, a kill."""

    @pytest.fixture
    def home(self, tmp_path: Path, images: Path) -> Home:
        home = Home.at(tmp_path / "home")
        home.root.mkdir()
        text = f'[camera]\nkind = "replay"\nsource = {json.dumps(str(images))}\ninterval_s = 0.05\nframes_per_experiment = 5\n'
        home.project_file.write_text(text + "[device]\nmin_free_mb = 1\n", encoding="utf-8")
        return home

    @pytest.fixture
    def start(self, home: Home) -> Iterator[Callable[[], subprocess.Popen[str]]]:
        children: list[subprocess.Popen[str]] = []

        def new() -> subprocess.Popen[str]:
            argv = [sys.executable, "-m", "cellfleet.device.camera.process", str(home.root)]
            pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            children.append(subprocess.Popen(argv, text=True, **pipes))
            return children[-1]

        yield new
        for child in children:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()

    @staticmethod
    def taken(home: Home) -> int:
        folder = FramesFolder(home.frames)
        return sum(len(folder.frame_names(e)) for e in folder.names())

    def wait(self, home: Home, count: int) -> None:
        wait_until(lambda: self.taken(home) >= count, f"{count} frames")

    def test_it_ends_with_its_input_and_goes_on_after_a_kill(
        self, home: Home, start: Callable[[], subprocess.Popen[str]]
    ) -> None:
        first = start()
        self.wait(home, 7)
        word, problem = read_camera(home.camera_file, datetime.now(UTC))
        assert (word, problem) == ("running", None)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        second = start()
        self.wait(home, 14)
        assert second.stdin is not None
        second.stdin.close()
        assert second.wait(PATIENCE_S) == 0
        assert second.stdout is not None
        assert "began" in second.stdout.read()
        assert read_camera(home.camera_file, datetime.now(UTC))[0] == "stopped"
        folder = FramesFolder(home.frames)
        check([folder.frame(e, f) for e in folder.names() for f in folder.frame_names(e)], home)

    def test_a_wrong_setting(self, home: Home, start: Callable[[], subprocess.Popen[str]]) -> None:
        home.project_file.write_text("[camera]\nkinds = 1\n", encoding="utf-8")
        child = start()
        _, said = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 3
        assert "kind" in said

    def test_a_heartbeat_that_is_late(self, home: Home, start: Callable[[], subprocess.Popen[str]]) -> None:
        assert read_camera(home.camera_file, datetime.now(UTC)) == ("stopped", None)
        start()
        self.wait(home, 1)
        later = datetime.now(UTC) + timedelta(minutes=5)
        wait_until(home.camera_file.is_file, "a heartbeat")
        word, problem = read_camera(home.camera_file, later)
        assert word == "failing"
        assert problem is not None
        assert problem.code == "camera.late"
