"""The store reads what lies on the disk, damaged lines and files among it; names of frames; the queue; the gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.device.camera.frame_store import frame_name, problem_of, safe_suffix
from cellfleet.device.camera.source import field_of, well_of
from cellfleet.device.scheduling.assignment import LIVE_S, next_task
from cellfleet.device.scheduling.downtime import DowntimeMeter
from cellfleet.device.scheduling.experiment_store import ExperimentStore
from cellfleet.device.scheduling.experiments import Experiment
from cellfleet.device.scheduling.pins import Pin, append_outcome, read_outcomes, read_pins, write_pins
from cellfleet.device.scheduling.worker import SegmenterWorker
from cellfleet.wire.base import is_key
from cellfleet.wire.telemetry_events import FrameFailed
from support_scheduler import Instrument

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def failed(frame: str, pin: int = 1) -> FrameFailed:
    return FrameFailed(experiment="e1", frame=frame, pin=pin, reason="x", failed_at=NOW)


def pin(number: int = 1, sha256: str = "0" * 64) -> Pin:
    return Pin(number=number, bundle_sha256=sha256, at=NOW)


@pytest.mark.parametrize("torn", [b"", b'{"event":"fail', b'{"event":"failed"}', b"\x00\xff\x00", b"[]\n\n"])
def test_torn_lines_are_passed_over_and_the_next_is_whole(tmp_path: Path, torn: bytes) -> None:
    append_outcome(tmp_path, failed("f1"))
    with (tmp_path / "outcomes.jsonl").open("ab") as f:
        f.write(torn)
    append_outcome(tmp_path, failed("f2"))
    assert [o.frame for o in read_outcomes(tmp_path)] == ["f1", "f2"]


def test_pins(tmp_path: Path) -> None:
    assert read_pins(tmp_path) == []
    write_pins(tmp_path, [pin(1), pin(2, "1" * 64)])
    with (tmp_path / "pins.jsonl").open("ab") as f:
        f.write(b'{"number":3')
    assert read_pins(tmp_path) == [pin(1), pin(2, "1" * 64)]


@given(st.text(max_size=300), st.integers(0, 99_999))
def test_names_of_frames_are_safe_whatever_the_original_is(original: str, index: int) -> None:
    name = frame_name(index, original)
    assert is_key(name)
    assert len(name) <= 80
    assert name.startswith(f"f{index:05d}")
    suffix = safe_suffix(original)
    assert suffix.isascii()
    assert is_key("x" + suffix)
    assert suffix != ".json"


def test_problems_of_bytes() -> None:
    assert problem_of(b"II*\x00rest") == problem_of(b"\x89PNG\r\n\x1a\nrest") == ""
    assert "JPEG" in problem_of(b"\xff\xd8\xff")
    assert problem_of(b"") != problem_of(b"GIF8") != ""


@pytest.mark.parametrize(
    ("name", "well", "field"),
    [
        ("A01_f02_t003.tif", "A01", 2),
        ("plate_B12_s3.ome.tif", "B12", 3),
        ("cells 4.png", "none", 1),
        ("ABC12.tif", "none", 1),
        ("t5-H9-field11.tif", "H9", 11),
    ],
)
def test_wells_and_fields_in_file_names(name: str, well: str, field: int) -> None:
    assert (well_of(name, "none"), field_of(name)) == (well, field)


def test_only_what_changed_is_told_and_damage_is_named(tmp_path: Path) -> None:
    box = Instrument(tmp_path / "home")
    first = box.begin(1)
    box.take(first, 0)
    store = ExperimentStore(box.home.frames, box.home.results)
    changed, new = store.scan()
    assert ([e.name for e in changed], len(new)) == ([first.experiment], 1)
    assert store.scan() == ([], [])
    broken = box.take(first, 1)
    (box.home.frames / first.experiment / f"{broken}.json").write_bytes(b"{")
    second = box.begin(2)
    (box.home.frames / "e00003-x").mkdir()
    (box.home.frames / "e00003-x" / "experiment.json").write_bytes(b"{}")
    changed, new = store.scan()
    assert ([e.name for e in changed], len(new)) == ([second.experiment], 0)
    assert len(store.problems) == 2
    running = store.running()
    assert running is not None
    assert running.name == second.experiment
    assert store.has_ended(store.experiments[first.experiment])


def test_an_experiment_that_was_closed_is_numbers_until_it_is_pinned_anew(tmp_path: Path) -> None:
    box = Instrument(tmp_path / "home")
    facts = box.begin(1)
    names = [box.take(facts, i) for i in range(3)]
    box.end(facts)
    store = ExperimentStore(box.home.frames, box.home.results)
    ((experiment,), _) = store.scan()
    store.add_pin(experiment, pin())
    for name in names:
        assert store.note(experiment, failed(name))
        assert not store.note(experiment, failed(name))
    assert not store.note(experiment, failed(names[0], pin=2))
    store.close(experiment)
    again = ExperimentStore(box.home.frames, box.home.results)
    ((found,), frames) = again.scan()
    assert (found.frames, frames) == ({}, [])
    assert again.counters().failed == 3
    again.add_pin(found, pin(2, "1" * 64))
    assert len(found.pending) == 3
    third = ExperimentStore(box.home.frames, box.home.results)
    ((reopened,), frames) = third.scan()
    assert len(frames) == len(reopened.pending) == 3
    assert third.counters().failed == 0


def test_live_first_then_the_oldest(tmp_path: Path) -> None:
    box = Instrument(tmp_path / "home")
    old, new = box.begin(1), box.begin(2)
    now = datetime.now(UTC)
    back = box.take(old, 0, at=now - timedelta(hours=1))
    live = box.take(new, 0, at=now - timedelta(seconds=LIVE_S / 2))
    store = ExperimentStore(box.home.frames, box.home.results)
    store.scan()
    experiments = list(store.experiments.values())

    def task() -> tuple[str, bool] | None:
        found = next_task(experiments, now)
        return (found.frame.taken.frame, found.live) if found else None

    assert task() == (live, True)
    experiments[1].before = {live}
    assert task() == (back, False)
    experiments[0].outcomes[back] = "segmented"
    assert task() == (live, False)
    experiments[1].outcomes[live] = "failed"
    assert task() is None
    assert isinstance(experiments[0], Experiment)


def test_gaps() -> None:
    def process(**facts: Any) -> SegmenterWorker:
        return cast(
            SegmenterWorker, SimpleNamespace(**{"phase": "starting", "ready_s": None, "ended_s": None, **facts})
        )

    gap = DowntimeMeter()
    gap.update(False, None, 10.0)
    assert gap.take(20.0) == 0
    gap.update(True, process(), 30.0)
    assert gap.take(31.0) == 1
    gap.update(True, process(phase="ready", ready_s=34.0), 40.0)
    assert gap.take(40.0) == 4
    assert gap.take(50.0) == 0
    gap.lost(51.0)
    gap.update(True, process(phase="ready", ready_s=51.5), 52.0)
    assert gap.take(60.0) == 0.5
    gap.lost(61.0)
    gap.update(False, None, 62.0)
    assert gap.take(63.0) == 0
