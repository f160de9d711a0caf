"""What every scheduler promises its agent: one battery for the real one and the simulated one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from cellfleet.device.camera.frame_store import ExperimentFile
from cellfleet.device.interfaces import FrameOutcome, Scheduler, SegmenterFailure, Slot, WorkSnapshot
from cellfleet.device.scheduling.pins import read_pins
from cellfleet.wire.reason import because
from simulators.scheduler import Behaviour, SimulatedExperiment, SimulatedScheduler
from support_scheduler import Instrument

WHY = because("pin.rolled-back")
HOUR = timedelta(hours=1)


class Bench(Protocol):
    """A scheduler, its camera, and what the polls brought so far."""

    scheduler: Scheduler
    seen: WorkSnapshot
    outcomes: list[FrameOutcome]
    losses: list[SegmenterFailure]

    def now(self) -> datetime: ...
    def shift(self, by: timedelta) -> None: ...
    def slot(self, version: str) -> Slot: ...
    def begin(self) -> str: ...
    def take(self, experiment: str) -> str: ...
    def end(self, experiment: str) -> None: ...
    def pins(self, experiment: str) -> list[str]: ...
    def crashes(self, slot: Slot) -> None: ...
    def until(self, true: Callable[[], object]) -> None: ...


class SimulatedBench:
    def __init__(self) -> None:
        self.simulated = SimulatedScheduler()
        self.simulated.takes_frames = False
        self.scheduler: Scheduler = self.simulated
        self.seen = WorkSnapshot()
        self.outcomes: list[FrameOutcome] = []
        self.losses: list[SegmenterFailure] = []
        self._now = datetime.fromisoformat("2026-03-02T12:00:00Z")

    def now(self) -> datetime:
        return self._now

    def shift(self, by: timedelta) -> None:
        self._now += by

    def slot(self, version: str) -> Slot:
        return Slot(Path(version), version.replace(".", "") * 16, "tiny", version, 1)

    def begin(self) -> str:
        return self.simulated.begin().name

    def take(self, experiment: str) -> str:
        return self.simulated.take(self._find(experiment), self._now)

    def end(self, experiment: str) -> None:
        self._find(experiment).ended = True

    def pins(self, experiment: str) -> list[str]:
        return self._find(experiment).slots

    def crashes(self, slot: Slot) -> None:
        self.simulated.behaviours[slot.sha256] = Behaviour(crashes=True)

    def until(self, true: Callable[[], object]) -> None:
        for _ in range(100):
            self._now += timedelta(milliseconds=10)
            self.seen = self.scheduler.poll(self._now)
            self.outcomes += self.seen.frames
            self.losses += self.seen.failures
            if true():
                return
        raise AssertionError(self.seen)

    def _find(self, name: str) -> SimulatedExperiment:
        return next(e for e in self.simulated.pins if e.name == name)


class RealBench:
    def __init__(self, root: Path) -> None:
        self.box = Instrument(root)
        self.real = self.box.open(None)
        self.scheduler: Scheduler = self.real
        self._facts: dict[str, ExperimentFile] = {}
        self._frames = 0

    @property
    def seen(self) -> WorkSnapshot:
        return self.box.seen

    @property
    def outcomes(self) -> list[FrameOutcome]:
        return self.box.outcomes

    @property
    def losses(self) -> list[SegmenterFailure]:
        return self.box.losses

    def now(self) -> datetime:
        return self.box.clock.now()

    def shift(self, by: timedelta) -> None:
        self.box.clock.shift += by

    def slot(self, version: str) -> Slot:
        return self.box.slot(version)

    def begin(self) -> str:
        facts = self.box.begin(len(self._facts) + 1)
        self._facts[facts.experiment] = facts
        return facts.experiment

    def take(self, experiment: str) -> str:
        self._frames += 1
        return self.box.take(self._facts[experiment], self._frames, at=self.now())

    def end(self, experiment: str) -> None:
        self.box.end(self._facts[experiment], self.now())

    def pins(self, experiment: str) -> list[str]:
        return [pin.bundle_sha256 for pin in read_pins(self.box.home.results / experiment)]

    def crashes(self, slot: Slot) -> None:
        assert slot.bundle.is_file()
        (self.box.flags / "crash-any").touch()
        (self.box.flags / "for-ever").touch()

    def until(self, true: Callable[[], object]) -> None:
        self.box.poll(self.real)
        self.box.until(self.real, true)


@pytest.fixture(params=["simulated", "real"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "simulated":
        yield SimulatedBench()
        return
    real = RealBench(tmp_path / "home")
    yield real  # type: ignore[misc]
    real.box.close()


def segmented(bench: Bench, slot: Slot, frames: int) -> str:
    """A new experiment whose frames the slot has segmented."""
    name = bench.begin()
    before = len(bench.outcomes)
    for _ in range(frames):
        bench.take(name)
    bench.until(lambda: len(bench.outcomes) == before + frames)
    assert bench.pins(name)[-1] == slot.sha256
    return name


def test_frames_wait_for_a_slot(bench: Bench) -> None:
    name = bench.begin()
    frame = bench.take(name)
    bench.until(lambda: bench.seen.pending == 1)
    assert (bench.seen.ready, bench.seen.segmenter, bench.seen.experiment) == (False, "stopped", name)
    assert (bench.pins(name), bench.scheduler.pinned()) == ([], frozenset())
    slot = bench.slot("1.0.0")
    bench.scheduler.switch(slot)
    bench.until(lambda: bench.outcomes and bench.seen.pending == 0)
    (outcome,) = bench.outcomes
    assert (outcome.experiment, outcome.frame, outcome.slot, outcome.live) == (name, frame, slot.sha256, True)
    assert (bench.seen.ready, bench.seen.segmenter) == (True, "running")
    assert bench.pins(name) == [slot.sha256]
    assert bench.scheduler.pinned() == {slot.sha256}
    counted = bench.scheduler.counters()
    assert (counted.taken, counted.stored, counted.segmented, counted.failed) == (1, 1, 1, 0)


def test_a_switch_leaves_pinned_experiments_alone(bench: Bench) -> None:
    old, new = bench.slot("1.0.0"), bench.slot("2.0.0")
    bench.scheduler.switch(old)
    first = segmented(bench, old, 1)
    bench.scheduler.switch(new)
    bench.take(first)
    bench.until(lambda: len(bench.outcomes) == 2)
    assert {o.slot for o in bench.outcomes} == {old.sha256}
    bench.end(first)
    bench.until(lambda: old.sha256 not in bench.scheduler.pinned())
    segmented(bench, new, 1)
    assert bench.outcomes[-1].slot == new.sha256
    assert bench.pins(first) == [old.sha256]


def test_pinned_experiments_go_on_without_an_active_slot(bench: Bench) -> None:
    slot = bench.slot("1.0.0")
    bench.scheduler.switch(slot)
    name = segmented(bench, slot, 1)
    bench.scheduler.switch(None)
    bench.take(name)
    bench.until(lambda: len(bench.outcomes) == 2)
    assert bench.outcomes[-1].slot == slot.sha256
    assert bench.scheduler.pinned() == {slot.sha256}


def test_repin_segments_everything_again(bench: Bench) -> None:
    good, bad = bench.slot("1.0.0"), bench.slot("2.0.0")
    activated = bench.now()
    bench.scheduler.switch(bad)
    over = segmented(bench, bad, 2)
    bench.end(over)
    bench.until(lambda: not bench.scheduler.pinned())
    running = segmented(bench, bad, 1)
    bench.scheduler.switch(good)
    for _ in range(2):
        bench.scheduler.repin(bad, good, activated, WHY)
        assert bench.pins(over) == bench.pins(running) == [bad.sha256, good.sha256]
    assert good.sha256 in bench.scheduler.pinned()
    bench.until(lambda: len(bench.outcomes) == 6)
    again = bench.outcomes[3:]
    assert {(o.slot, o.live) for o in again} == {(good.sha256, False)}
    assert {o.frame for o in again} == {o.frame for o in bench.outcomes[:3]}
    counted = bench.scheduler.counters()
    assert (counted.taken, counted.segmented) == (3, 3)


def test_counters_are_those_of_the_newest_pins(bench: Bench) -> None:
    bad = bench.slot("2.0.0")
    bench.scheduler.switch(bad)
    segmented(bench, bad, 2)
    bench.scheduler.switch(None)
    bench.scheduler.repin(bad, None, bench.now() - HOUR, WHY)
    counted = bench.scheduler.counters()
    assert (counted.taken, counted.segmented) == (2, 0)


def test_repin_without_a_good_slot_lets_frames_wait(bench: Bench) -> None:
    bad, later = bench.slot("2.0.0"), bench.slot("3.0.0")
    activated = bench.now()
    bench.scheduler.switch(bad)
    name = segmented(bench, bad, 2)
    bench.scheduler.switch(None)
    bench.scheduler.repin(bad, None, activated, WHY)
    assert bench.pins(name) == [bad.sha256, ""]
    assert bench.scheduler.pinned() == frozenset()
    bench.until(lambda: bench.seen.pending == 2)
    assert len(bench.outcomes) == 2
    bench.scheduler.switch(later)
    bench.until(lambda: len(bench.outcomes) == 4)
    assert {o.slot for o in bench.outcomes[2:]} == {later.sha256}
    assert bench.pins(name) == [bad.sha256, "", later.sha256]


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "cut off"])
def test_repin_leaves_what_was_segmented_before(bench: Bench, ended: bool) -> None:
    """The bad slot was good then; also when the camera was cut off and never ended the experiment."""
    good, bad = bench.slot("1.0.0"), bench.slot("2.0.0")
    bench.scheduler.switch(bad)
    first = segmented(bench, bad, 1)
    if ended:
        bench.end(first)
    second = segmented(bench, bad, 1)
    bench.until(lambda: first_is_over(bench))
    bench.shift(HOUR)
    bench.scheduler.repin(bad, good, bench.now(), WHY)
    assert bench.pins(first) == [bad.sha256]
    assert bench.pins(second) == [bad.sha256, good.sha256], "the bad slot still segments it"


def first_is_over(bench: Bench) -> bool:
    """Nothing is left to do in the experiment before the newest one; the real scheduler has closed it."""
    if isinstance(bench, RealBench):
        oldest = min(bench.box.home.results.iterdir())
        return (oldest / "closed.json").exists()
    return True


def test_repin_takes_what_was_segmented_since_though_it_was_pinned_before(bench: Bench) -> None:
    good, bad = bench.slot("1.0.0"), bench.slot("2.0.0")
    bench.shift(-2 * HOUR)
    bench.scheduler.switch(bad)
    first = segmented(bench, bad, 1)
    bench.end(first)
    bench.shift(2 * HOUR)
    bench.take(first)
    bench.until(lambda: len(bench.outcomes) == 2)
    segmented(bench, bad, 1)
    bench.until(lambda: first_is_over(bench))
    bench.scheduler.repin(bad, good, bench.now() - HOUR, WHY)
    assert bench.pins(first) == [bad.sha256, good.sha256]


def test_a_frame_that_loses_two_segmenters_failed(bench: Bench) -> None:
    slot = bench.slot("1.0.0")
    bench.crashes(slot)
    bench.scheduler.switch(slot)
    name = bench.begin()
    bench.take(name)
    bench.until(lambda: bench.outcomes)
    (outcome,) = bench.outcomes
    assert (outcome.result, outcome.slot) == ("failed", slot.sha256)
    assert outcome.reason is not None
    assert [(t.slot, t.kind) for t in bench.losses] == [(slot.sha256, "crash")] * 2
    assert bench.scheduler.counters().failed == 1
