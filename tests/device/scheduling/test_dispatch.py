"""What the dispatcher does with losses, refusals and a disk that takes no results; how long the pool waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cellfleet.device.interfaces import Slot
from cellfleet.device.scheduling.assignment import Task
from cellfleet.device.scheduling.dispatch import DISK_WAIT_S, Dispatcher
from cellfleet.device.scheduling.experiment_store import CLOSED, ExperimentStore
from cellfleet.device.scheduling.outcome_recorder import OutcomeRecorder
from cellfleet.device.scheduling.pinning import Pinning
from cellfleet.device.scheduling.pins import Pin
from cellfleet.device.scheduling.worker_pool import Loss, WorkerPool
from cellfleet.errors import DeviceError, StorageError
from cellfleet.ports import FixedClock
from cellfleet.wire.reason import because
from cellfleet.wire.segmenter import Failed
from support_scheduler import Instrument

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SLOT = Slot(Path("slot"), "b" * 64, "tiny", "1.0.0", 1)
WHY = because("segmenter.refused", detail="x")


class Desk:
    """A dispatcher of one experiment with one frame, and segmenters that are only said to be there."""

    def __init__(self, root: Path) -> None:
        self.box = Instrument(root / "home")
        facts = self.box.begin()
        self.box.take(facts, 0, at=NOW)
        self.store = ExperimentStore(self.box.home.frames, self.box.home.results)
        ((self.experiment,), ((_, self.frame),)) = self.store.scan()
        self.store.add_pin(self.experiment, Pin(number=1, bundle_sha256=SLOT.sha256, at=NOW))
        self.clock = FixedClock(NOW, 100.0)
        recorder = OutcomeRecorder(self.store, self.box.sink)
        self.answered: list[Any] = []
        pool = cast(WorkerPool, SimpleNamespace(answered=lambda: self.answered))
        pinning = Pinning(self.store, recorder, self.clock)
        has_ended = self.store.has_ended
        self.dispatch = Dispatcher(self.box.home, self.box.settings, self.clock, pool, recorder, pinning, has_ended)
        self.task = Task(self.experiment, self.frame, True, 1)

    def loss(self, kind: Any = "crash", about: Any = None) -> None:
        self.dispatch.note_loss(Loss(SLOT, kind, WHY, about), NOW)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_disk_that_takes_no_results_is_waited_for(desk: Desk) -> None:
    taken: list[str] = []
    request = SimpleNamespace(answer=Failed(id=1, kind="disk", message="full"), about=desk.task)
    desk.answered = [SimpleNamespace(request=request, take_answer=lambda: taken.append("x"), slot=SLOT)]
    assert desk.dispatch.may_feed()
    with pytest.raises(StorageError, match="full"):
        desk.dispatch.harvest(NOW)
    assert (taken, desk.experiment.outcomes, desk.dispatch.take()) == (["x"], {}, ((), ()))
    desk.clock.elapsed_s += DISK_WAIT_S - 0.1
    assert not desk.dispatch.may_feed()
    desk.clock.elapsed_s += 0.1
    assert desk.dispatch.may_feed()


def test_a_refusal_is_reported_once_a_crash_each_time(desk: Desk) -> None:
    for _ in range(3):
        desk.loss("refused")
    assert [e.kind for e in desk.box.sink.of("incident")] == ["segmenter-refused"]
    assert desk.dispatch.take() == ((), ())
    desk.box.sink.events.clear()
    for _ in range(2):
        desk.loss("crash")
    _, failures = desk.dispatch.take()
    assert [f.kind for f in failures] == ["crash", "crash"]


def test_tables_that_end_a_segmenter_are_not_asked_for_again(desk: Desk) -> None:
    desk.loss(about=desk.experiment)
    assert desk.experiment.tables_at == -1


def test_a_new_pin_gives_a_frame_new_attempts(desk: Desk) -> None:
    desk.loss(about=desk.task)
    desk.store.add_pin(desk.experiment, Pin(number=2, bundle_sha256="c" * 64, at=NOW))
    desk.loss(about=Task(desk.experiment, desk.frame, False, 2))
    assert desk.experiment.outcomes == {}
    desk.loss(about=Task(desk.experiment, desk.frame, False, 2))
    assert list(desk.experiment.outcomes.values()) == ["failed"]


def test_a_program_that_cannot_be_started_is_tried_with_growing_waits(tmp_path: Path) -> None:
    clock = FixedClock(NOW, 100.0)
    starts: list[float] = []

    def start(_: Sequence[str], __: int, ___: Path) -> Any:
        starts.append(clock.monotonic_s())
        raise DeviceError("no such program")

    pool = WorkerPool(["x"], 1, tmp_path, clock, frame_timeout_s=1.0, retry_s=1.0, start=start)
    pool.want({SLOT.sha256: SLOT})
    for _ in range(400):
        pool.step()
        clock.elapsed_s += 0.5
    waits = [later - before for before, later in zip(starts, starts[1:], strict=False)]
    assert waits == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert pool.refusal(SLOT.sha256) is not None


def test_a_closed_experiment_counts_only_under_its_last_pin(desk: Desk) -> None:
    desk.store.close(desk.experiment)
    closed = desk.experiment.results / CLOSED
    stale = closed.read_bytes()
    desk.store.add_pin(desk.experiment, Pin(number=2, bundle_sha256="c" * 64, at=NOW))
    assert not closed.exists()
    closed.write_bytes(stale)  # a power cut between the pin and the removal
    ((found,), _) = ExperimentStore(desk.box.home.frames, desk.box.home.results).scan()
    assert found.closed is None
