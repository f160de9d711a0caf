"""Counting frames: on the disks, and as the server knows them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.demo.fleet_steps.frame_count import FrameCount, count_frames
from cellfleet.device.camera.frame_store import ExperimentFile, FrameFile, FramesFolder
from cellfleet.wire.telemetry_events import FrameTaken

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


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
    assert count_frames(frames, rows()) == FrameCount(taken=6, stored=6, segmented=6, lost=0, doubled=0)
    assert count_frames(frames, rows()) + count_frames(frames, rows()) == FrameCount(12, 12, 12, 0, 0)


def test_a_mask_that_the_server_does_not_know_is_lost_and_one_too_many_is_doubled(frames: Path) -> None:
    assert count_frames(frames, rows()[1:]) == FrameCount(taken=6, stored=6, segmented=5, lost=1, doubled=0)
    assert count_frames(frames, [*rows(), rows()[2]]) == FrameCount(taken=6, stored=6, segmented=6, lost=0, doubled=1)
    assert count_frames(frames, []).lost == 6


def test_a_raw_file_that_is_gone_or_changed_is_lost(frames: Path) -> None:
    (frames / "0001-plate" / "t00001.tif").unlink()
    (frames / "0002-plate" / "t00002.tif").write_bytes(b"other")
    assert count_frames(frames, rows()) == FrameCount(taken=6, stored=4, segmented=6, lost=2, doubled=0)


def test_a_gap_in_the_numbers_is_lost_and_a_number_twice_is_doubled(frames: Path) -> None:
    for name in ("t00001.tif", "t00001.json"):
        (frames / "0001-plate" / name).unlink()
    left = [r for r in rows() if r != {"experiment": "0001-plate", "frame": "t00001"}]
    assert count_frames(frames, left) == FrameCount(taken=5, stored=5, segmented=5, lost=1, doubled=0)
    folder = frames / "0002-plate"
    again = FrameFile.model_validate_json((folder / "t00001.json").read_bytes())
    twin = again.model_copy(update={"taken": again.taken.model_copy(update={"frame": "t00009"})})
    (folder / "t00009.json").write_bytes(twin.to_json())
    assert count_frames(frames, [*left, {"experiment": "0002-plate", "frame": "t00009"}]).doubled == 1
