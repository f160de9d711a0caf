"""The second half of the demo: its bad models, scenes, cable, programs, counting and watching, each by itself."""

from __future__ import annotations

import csv
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from numpy.typing import NDArray

from cellfleet.bundle import ModelFolder
from cellfleet.canonical import sha256_hex
from cellfleet.config.project import Settings
from cellfleet.data import DataSetVersion, Frame
from cellfleet.demo.fleet_story import check_room, short_times
from cellfleet.demo.fleet_story.cable import Cable
from cellfleet.demo.fleet_story.cast import Cast, Instrument
from cellfleet.demo.fleet_story.faulty_models import attentive, inverted, make_model
from cellfleet.demo.fleet_story.frame_count import Counted, count
from cellfleet.demo.fleet_story.programs import Programs
from cellfleet.demo.fleet_story.scenes import FRAMES, Scene, held_out_scene, synthetic_scene
from cellfleet.demo.fleet_story.watch import NotInTime, deployment_line, wait_for
from cellfleet.demo.story import Story
from cellfleet.device.camera.frame_store import ExperimentFile, FrameFile, FramesFolder
from cellfleet.errors import DeviceError, NetworkError, StorageError
from cellfleet.metrics import match, numbers_of
from cellfleet.ports import silent
from cellfleet.runtime import load_segmenter
from cellfleet.wire.events import FrameTaken
from support_bundle import discs
from support_unet import unet_folder
from support_waiting import PATIENCE_S, wait_for_end, wait_until

SIDE_PX = 544
NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def frame_of(image: NDArray[Any]) -> Frame:
    return Frame(image[None], ("phase",), 0.5)


# The two bad models


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unet_folder(tmp_path_factory.mktemp("models") / "good").path


def test_nonsense_loads_and_runs_and_draws_the_background(good: Path, tmp_path: Path) -> None:
    bad = make_model(good, tmp_path / "bad", "0.2.0", inverted)
    assert bad.spec.version == "0.2.0"
    assert ModelFolder.load(tmp_path / "bad").variants == bad.variants
    image, truth = discs(1)
    right, wrong = (load_segmenter(m, "onnxruntime/fp32") for m in (ModelFolder.load(good), bad))
    ours, theirs = right.maps(frame_of(image)), wrong.maps(frame_of(image))
    for a, b in ((ours.foreground, theirs.foreground), (ours.distance, theirs.distance)):
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(65535 - a.astype(int), b, atol=2)
    ap50 = [numbers_of([match(truth, m.segment(frame_of(image)).labels)]).ap50 for m in (right, wrong)]
    assert ap50[0] > 0.8
    assert ap50[1] == 0


def test_greedy_draws_what_the_good_one_draws(good: Path, tmp_path: Path) -> None:
    bad = make_model(good, tmp_path / "bad", "0.3.0", attentive(SIDE_PX))
    right, greedy = (load_segmenter(m, "onnxruntime/fp32") for m in (ModelFolder.load(good), bad))
    for height, width in ((72, 96), (130, 61), (1, 1)):
        image, _ = discs(2, height, width)
        np.testing.assert_array_equal(
            right.segment(frame_of(image)).labels, greedy.segment(frame_of(image)).labels, strict=True
        )


_PEAK = """\
import sys
import numpy as np
from pathlib import Path
from cellfleet.bundle import ModelFolder
from cellfleet.data import Frame
from cellfleet.runtime import load_segmenter
segmenter = load_segmenter(ModelFolder.load(Path(sys.argv[1])), "onnxruntime/fp32")
for side in map(int, sys.argv[2:]):
    image = np.random.default_rng(1).integers(0, 255, (1, side, side)).astype(np.uint8)
    segmenter.segment(Frame(image, ("phase",), 0.5))
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""
"""The peak of this program alone: ru_maxrss would begin with that of the process that started it."""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read the way of Linux")
def test_greedy_is_hungry_on_live_frames_only(good: Path, tmp_path: Path) -> None:
    bad = make_model(good, tmp_path / "bad", "0.3.0", attentive(SIDE_PX))
    peaks = {}
    for name, folder in (("good", good), ("bad", bad.path)):
        argv = [sys.executable, "-c", _PEAK, str(folder), "160", str(SIDE_PX)]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        peaks[name] = [int(line) for line in done.stdout.split()]
    golden, live = (bad - good for good, bad in zip(peaks["good"], peaks["bad"], strict=True))
    scores_mb = (SIDE_PX // (SIDE_PX // 96)) ** 4 * 4 / 2**20
    assert golden < 60, peaks
    assert live > 0.8 * scores_mb > 300, peaks


# What cameras see


def images_of(scene: Scene) -> list[NDArray[Any]]:
    with (scene.folder / "index.csv").open(newline="") as f:
        names = [row["file"] for row in csv.DictReader(f)]
    return [tifffile.imread(scene.folder / "images" / name) for name in names]


@pytest.mark.parametrize("seed", [0, 2026])
def test_a_time_lapse_is_long_wide_and_full_enough(tmp_path: Path, seed: int) -> None:
    scene = synthetic_scene(tmp_path / "scene", seed, 1 + seed % 3, silent)
    images = images_of(scene)
    assert len(images) == scene.frames == FRAMES >= 60
    assert {i.shape for i in images} == {(scene.side_px, scene.side_px)}
    assert scene.side_px >= 512
    masks = sorted((scene.folder / "masks").glob("*.tif"))
    cells = [len(np.unique(tifffile.imread(m))) - 1 for m in masks]
    assert len(cells) == FRAMES
    assert min(cells) >= 50, cells


def test_cameras_show_held_out_frames_of_own_data(tmp_path: Path) -> None:
    from cellfleet.cli.main import run
    from cellfleet.data.synthetic import SceneParams, write_data_set

    write_data_set(tmp_path / "cells", SceneParams(height_px=64, width_px=64), 0, sequences=3, frames=2)
    assert run(["data", "freeze", str(tmp_path / "cells"), "-p", str(tmp_path)]) == 0
    version = DataSetVersion.load(tmp_path / "dataset.json")
    held_out = {e.image.sha256 for e in version.split("test")}
    seen = []
    for number in (1, 2, 3):
        scene = held_out_scene(tmp_path / "scenes" / str(number), version, number)
        assert (scene.channels, scene.side_px, scene.frames) == (("phase",), 64, FRAMES)
        assert scene.pixel_size_um == version.split("test")[0].pixel_size_um
        digests = [sha256_hex(np.ascontiguousarray(i).tobytes()) for i in images_of(scene)]
        files = {sha256_hex(f.read_bytes()) for f in (scene.folder / "images").iterdir()}
        assert len(digests) == FRAMES
        assert files == held_out
        seen.append(digests[0])
    assert len(set(seen)) > 1, "instruments begin with different frames"


# The cable


@contextmanager
def echo() -> Iterator[int]:
    """A server on loopback that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(peer: socket.socket) -> None:
            with peer:
                while data := peer.recv(1000):
                    peer.sendall(data)

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def answers(port: int) -> bool:
    """A new connection carries a word there and back."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as s:
            s.sendall(b"hello")
            return s.recv(10) == b"hello"
    except OSError:
        return False


def ended(s: socket.socket) -> bool:
    """The other side is gone."""
    try:
        return s.recv(10) == b""
    except ConnectionError:
        return True


def test_a_cable_that_is_cut_breaks_what_is_connected_and_carries_again_when_mended() -> None:
    with echo() as port:
        cable = Cable("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", cable.port), timeout=PATIENCE_S) as s:
            s.sendall(b"hello")
            assert s.recv(10) == b"hello"
            cable.cut()
            assert ended(s)
        assert not answers(cable.port)
        cable.mend()
        assert answers(cable.port)
        was = cable.port
        cable.close()
        assert not answers(was)


def test_a_cable_to_nowhere_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    cable = Cable("127.0.0.1", port)
    assert not answers(cable.port)
    cable.close()


# Programs


def test_a_program_that_ended_is_told_with_its_last_words(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Programs(tmp_path / "logs", {}) as programs:
        program = programs.start("nobody", ["device", "run", str(home), "--tied"])
        program.process.wait(PATIENCE_S)
        with pytest.raises(DeviceError, match="nobody ended with exit code") as caught:
            programs.check()
    assert str(home) in caught.value.message
    assert "nobody.log" in caught.value.hint


_PARENT = """\
import sys, time
from pathlib import Path
from cellfleet.demo.fleet_story.programs import Programs
with Programs(Path("logs"), {}) as programs:
    program = programs.start("server", ["fleet", "serve", "--tied", "--port", "0", "-p", sys.argv[1]])
    print(program.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_program_ends_with_its_parent(tmp_path: Path, end: str) -> None:
    (tmp_path / "cellfleet.toml").write_text("[fleet]\n")
    argv = [sys.executable, "-c", _PARENT, str(tmp_path)]
    parent = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: (tmp_path / "serve.json").exists(), "the server starts")
        child = psutil.Process(pid)
        parent.send_signal(getattr(signal, end))
        parent.wait(PATIENCE_S)
    wait_for_end([child])


# Counting


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Two experiments of three frames."""
    folder = FramesFolder(tmp_path / "frames")
    for number in (1, 2):
        experiment = f"{number:04d}-plate"
        (folder.root / experiment).mkdir(parents=True)
        folder.save(ExperimentFile(experiment=experiment, number=number, started_at=NOW))
        for index in range(3):
            raw = bytes([number, index])
            facts = FrameTaken(
                experiment=experiment, frame=f"t{index:05d}", index=index, well="A1", time_s=index, taken_at=NOW,
                sha256=sha256_hex(raw), bytes=len(raw),
            )  # fmt: skip
            (folder.root / experiment / f"{facts.frame}.tif").write_bytes(raw)
            file = FrameFile(taken=facts, file=f"{facts.frame}.tif")
            (folder.root / experiment / f"{facts.frame}.json").write_bytes(file.to_json())
    return folder.root


def rows() -> list[dict[str, str]]:
    return [{"experiment": f"{n:04d}-plate", "frame": f"t{i:05d}"} for n in (1, 2) for i in range(3)]


def test_everything_is_there(frames: Path) -> None:
    assert count(frames, rows()) == Counted(taken=6, stored=6, segmented=6, lost=0, doubled=0)
    assert count(frames, rows()) + count(frames, rows()) == Counted(12, 12, 12, 0, 0)


def test_a_mask_that_the_server_does_not_know_is_lost_and_one_too_many_is_doubled(frames: Path) -> None:
    assert count(frames, rows()[1:]) == Counted(taken=6, stored=6, segmented=5, lost=1, doubled=0)
    assert count(frames, [*rows(), rows()[2]]) == Counted(taken=6, stored=6, segmented=6, lost=0, doubled=1)
    assert count(frames, []).lost == 6


def test_a_raw_file_that_is_gone_or_changed_is_lost(frames: Path) -> None:
    (frames / "0001-plate" / "t00001.tif").unlink()
    (frames / "0002-plate" / "t00002.tif").write_bytes(b"other")
    assert count(frames, rows()) == Counted(taken=6, stored=4, segmented=6, lost=2, doubled=0)


def test_a_gap_in_the_numbers_is_lost_and_a_number_twice_is_doubled(frames: Path) -> None:
    for name in ("t00001.tif", "t00001.json"):
        (frames / "0001-plate" / name).unlink()
    left = [r for r in rows() if r != {"experiment": "0001-plate", "frame": "t00001"}]
    assert count(frames, left) == Counted(taken=5, stored=5, segmented=5, lost=1, doubled=0)
    folder = frames / "0002-plate"
    again = FrameFile.model_validate_json((folder / "t00001.json").read_bytes())
    twin = again.model_copy(update={"taken": again.taken.model_copy(update={"frame": "t00009"})})
    (folder / "t00009.json").write_bytes(twin.to_json())
    assert count(frames, [*left, {"experiment": "0002-plate", "frame": "t00009"}]).doubled == 1


# Watching


def test_waiting_tells_every_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    seen = iter([(False, "one"), (False, "one"), (False, "two"), (True, "three")])
    wait_for("it", lambda: next(seen), lambda: None, PATIENCE_S)
    lines = [line.split("s  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["one", "two", "three"]


def test_waiting_tells_the_last_change_however_seldom_it_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    seen = iter([(False, "1 of 3"), (False, "2 of 3"), (True, "3 of 3")])
    wait_for("it", lambda: next(seen), lambda: None, PATIENCE_S, every_s=PATIENCE_S)
    assert [line.split("s  ")[1] for line in capsys.readouterr().out.splitlines()] == ["1 of 3", "3 of 3"]


def test_waiting_outlives_a_broken_network_and_ends_with_a_dead_program_or_its_patience() -> None:
    tries = iter([NetworkError("no connection"), None])

    def look() -> tuple[bool, str]:
        problem = next(tries)
        if problem is not None:
            raise problem
        return True, "there"

    wait_for("it", look, lambda: None, PATIENCE_S)

    def dead() -> None:
        raise DeviceError("XYZ-001 ended with exit code -9")

    with pytest.raises(DeviceError, match="exit code -9"):
        wait_for("it", lambda: (False, ""), dead, PATIENCE_S)
    with pytest.raises(NotInTime, match=r"it: not after 0 s; the last that was seen: so far"):
        wait_for("it", lambda: (False, "so far"), lambda: None, 0.0)


def test_a_deployment_in_one_line() -> None:
    members: list[dict[str, Any]] = [
        {"name": "B", "state": "waiting", "update": None},
        {"name": "A", "state": "updating", "update": {"state": "probation"}},
    ]
    line = deployment_line({"state": "running", "phase": 1, "phases": 2}, members)
    assert line == "running, phase 1 of 2: A probation, B waiting"


def test_waiting_for_instruments_says_what_is_wrong_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, FRAMES, ("phase",), None, SIDE_PX)
    with Programs(tmp_path / "logs", {}) as programs:
        cast = Cast(Story(chapters=8), tmp_path, programs)
        for name, taken, problems in (("A", 3, []), ("B", 0, ["the disk is nearly full"])):
            cast.instruments.append(Instrument(name, tmp_path / name, scene))
            status = tmp_path / name / "state" / "status.json"
            status.parent.mkdir(parents=True)
            status.write_text(json.dumps({"counters": {"taken": taken}, "health": {"problems": problems}}))
        with pytest.raises(NotInTime, match="take frames: A; B: the disk is nearly full"):
            cast.wait_instruments("take frames", ["A", "B"], lambda s: s["counters"]["taken"] > 0, patience_s=0.0)
        assert cast.wait_instruments("take frames", ["A"], lambda s: s["counters"]["taken"] > 0) < PATIENCE_S
    assert capsys.readouterr().out.splitlines()[-1].endswith("take frames: A")


# Settings


def test_a_disk_that_is_too_small_is_told_before_anything_is_done(tmp_path: Path) -> None:
    check_room(tmp_path, lambda _path: 2_000_000_000)
    with pytest.raises(StorageError, match="412 MB are free, and the fleet of the demo needs 2000 MB") as caught:
        check_room(tmp_path, lambda _path: 412_000_000)
    assert "--only-model" in caught.value.hint


def test_shorter_times_are_settings_and_flags_reach_the_instruments() -> None:
    settings = Settings.model_validate({"agent": {"tick_s": 0.25, "retry_s": 7}, "camera": {"interval_s": 3.0}})
    flags = ["agent.retry_s=7", "camera.interval_s=3", "training.epochs=2"]
    values = short_times.of_instrument(settings, flags)
    assert set(values) == {*short_times.INSTRUMENT, "agent.retry_s", "camera.interval_s"}
    assert (values["agent.tick_s"], values["agent.retry_s"], values["camera.interval_s"]) == (0.25, 7, 3.0)
    shown = {row[0]: row[2:] for row in short_times.rows(settings)}
    assert shown["camera.interval_s"] == ["60", "3"]
    assert set(shown) == {*short_times.SERVER, *short_times.INSTRUMENT}
    assert all(row[1] for row in short_times.rows(settings)), "every setting says what it means"
