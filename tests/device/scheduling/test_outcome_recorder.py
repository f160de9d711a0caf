"""Outcomes: the disk has them before the sink; the sink gets each of them, sooner or later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest

from cellfleet.device.interfaces import FrameOutcome
from cellfleet.device.scheduling.assignment import Task
from cellfleet.device.scheduling.experiment_store import ExperimentStore
from cellfleet.device.scheduling.experiments import Experiment
from cellfleet.device.scheduling.outcome_recorder import OutcomeRecorder, Reply
from cellfleet.device.scheduling.pins import Pin, read_outcomes
from cellfleet.device.scheduling.worker import NotUnderstood, SegmenterWorker
from cellfleet.errors import StorageError
from cellfleet.wire.reason import because
from cellfleet.wire.segmenter import Failed, MaskRow, Pong, Segmented
from support_scheduler import Instrument, Sink

NOW = datetime(2026, 1, 31, 12, 1, tzinfo=UTC)
SLOT, RUN = "b" * 64, "a" * 64


class PictureSink(Sink):
    """A sink that takes pictures, too."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[tuple[str, str, int, str]] = []
        self.refuses_pictures = False

    def put_picture(
        self, kind: Literal["thumbnail", "overlay"], experiment: str, frame: str, pin: int, path: Path
    ) -> None:
        assert experiment
        if self.refuses_pictures:
            raise StorageError("no space left", hint="free some")
        self.pictures.append((kind, frame, pin, path.name))


class Desk:
    """A frame of an experiment that is pinned, and its recorder."""

    def __init__(self, root: Path) -> None:
        self.box = Instrument(root / "home")
        facts = self.box.begin()
        self.box.take(facts, 0, at=NOW - timedelta(seconds=5))
        self.store = ExperimentStore(self.box.home.frames, self.box.home.results)
        ((self.experiment,), ((_, self.frame),)) = self.store.scan()
        self.sink = PictureSink()
        self.recorder = OutcomeRecorder(self.store, self.sink)
        pin = Pin(number=1, bundle_sha256=SLOT, run_digest=RUN, release_id=7, at=NOW)
        self.store.add_pin(self.experiment, pin)
        self.task = Task(self.experiment, self.frame, True, 1)

    @property
    def lines(self) -> list[str]:
        return [o.event for o in read_outcomes(self.experiment.results)]

    def row(self, **changes: Any) -> MaskRow:
        fields = {
            "experiment": self.experiment.name, "frame": self.frame.taken.frame, "run_digest": RUN, "bundle_sha256": SLOT,
            "variant": "x/y", "count": 3, "confluence_percent": 5.0, "timings_ms": {"total": 1000.0},
            "mask_sha256": "c" * 64, "segmented_at": NOW,
        }  # fmt: skip
        return MaskRow(**{**fields, **changes})

    def record(self, answer: Reply) -> FrameOutcome | None:
        worker = cast(SegmenterWorker, SimpleNamespace(slot=SimpleNamespace(sha256=SLOT)))
        return self.recorder.record(self.task, worker, answer, NOW)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def refuse(*_: object) -> None:
    raise StorageError("no space left", hint="free some")


ANSWERS: dict[str, Callable[[Desk], Reply]] = {
    "segmented": lambda desk: Segmented(id=1, row=desk.row()),
    "failed": lambda _: Failed(id=1, message="x"),
}


@pytest.mark.parametrize("event", ANSWERS)
def test_the_sink_holds_nothing_that_the_disk_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    answer = ANSWERS[event](desk)
    with monkeypatch.context() as patch:
        patch.setattr("cellfleet.device.scheduling.experiment_store.append_outcome", refuse)
        with pytest.raises(StorageError):
            desk.record(answer)
    assert (desk.sink.events, desk.lines, desk.experiment.outcomes) == ([], [], {})
    outcome = desk.record(answer)
    assert outcome is not None
    assert outcome.result == event
    assert [e.event for e in desk.sink.events] == desk.lines == [event]


@pytest.mark.parametrize("event", ANSWERS)
def test_what_the_sink_refuses_it_gets_at_the_next_look(desk: Desk, event: str) -> None:
    desk.sink.refuses = True
    assert desk.record(ANSWERS[event](desk)) is not None
    assert (desk.sink.events, desk.lines, desk.recorder.has_unsent) == ([], [event], True)
    desk.recorder.report([], [])
    assert desk.recorder.has_unsent
    desk.sink.refuses = False
    desk.recorder.report([], [])
    assert [e.event for e in desk.sink.events] == [event]
    assert not desk.recorder.has_unsent


def test_a_frame_has_one_outcome_under_a_pin(desk: Desk) -> None:
    assert desk.record(Segmented(id=1, row=desk.row())) is not None
    assert desk.record(Segmented(id=1, row=desk.row())) is None
    assert desk.record(Failed(id=1, message="x")) is None
    assert desk.lines == [e.event for e in desk.sink.events] == ["segmented"]


def test_an_answer_under_an_older_pin_does_not_count(desk: Desk) -> None:
    desk.store.add_pin(desk.experiment, Pin(number=2, bundle_sha256="d" * 64, at=NOW))
    assert desk.record(Segmented(id=1, row=desk.row())) is None
    assert (desk.lines, desk.sink.events) == ([], [])


def test_a_row_becomes_an_event(desk: Desk) -> None:
    outcome = desk.record(Segmented(id=1, row=desk.row(), memory_mb=310.5))
    assert outcome is not None
    assert (outcome.slot, outcome.milliseconds, outcome.memory_mb, outcome.live) == (SLOT, 1000.0, 310.5, True)
    (event,) = desk.sink.of("segmented")
    assert (event.pin, event.release_id) == (1, 7)
    assert event.timings_ms == {"total": 1000.0, "wait": 4000.0}


def test_rows_that_do_not_fit_are_failures(desk: Desk) -> None:
    wrong: dict[str, Reply] = {
        "frame.another": Segmented(id=1, row=desk.row(frame="other")),
        "frame.another-run": Segmented(id=1, row=desk.row(run_digest="e" * 64)),
        "frame.not-understood": NotUnderstood("row.count: not a number"),
    }
    for code, answer in wrong.items():
        desk.experiment.outcomes.clear()
        outcome = desk.record(answer)
        assert outcome is not None
        assert outcome.reason is not None
        assert (outcome.result, outcome.slot, outcome.reason.code) == ("failed", SLOT, code)
    desk.experiment.outcomes.clear()
    outcome = desk.record(Pong(id=1))
    assert outcome is not None
    assert outcome.result == "failed"


def test_another_experiment_with_the_same_frame_is_another_frame(desk: Desk) -> None:
    outcome = desk.record(Segmented(id=1, row=desk.row(experiment="e2")))
    assert outcome is not None
    assert outcome.reason == because("frame.another")


def test_whom_a_failure_blames(desk: Desk) -> None:
    for kind, blamed in (("frame", ""), ("model", SLOT)):
        desk.experiment.outcomes.clear()
        outcome = desk.record(Failed(id=1, kind=cast(Any, kind), message="x"))
        assert outcome is not None
        assert outcome.slot == blamed


def test_pictures_go_to_a_sink_that_takes_them(desk: Desk) -> None:
    files = {"thumbnail": "x.jpg", "thumbnail_overlay": "x.overlay.jpg", "mask": "m.tif"}
    assert desk.recorder.takes_pictures
    desk.record(Segmented(id=1, row=desk.row(), files=files))
    frame = desk.frame.taken.frame
    assert desk.sink.pictures == [("thumbnail", frame, 1, "x.jpg"), ("overlay", frame, 1, "x.overlay.jpg")]
    assert not OutcomeRecorder(desk.store, Sink()).takes_pictures


def test_a_picture_that_is_refused_is_no_reason_to_stop(desk: Desk) -> None:
    desk.sink.refuses_pictures = True
    assert desk.record(Segmented(id=1, row=desk.row(), files={"thumbnail": "x.jpg"})) is not None


def test_what_lies_on_the_disk_is_reported_once_when_it_is_found(desk: Desk) -> None:
    desk.record(Segmented(id=1, row=desk.row()))
    again = ExperimentStore(desk.box.home.frames, desk.box.home.results)
    changed, new = again.scan()
    sink = Sink()
    recorder = OutcomeRecorder(again, sink)
    recorder.report(changed, new)
    assert [e.event for e in sink.events] == ["experiment", "taken", "segmented"]
    sink.events.clear()
    recorder.report(changed, [])
    assert [e.event for e in sink.events] == ["experiment"]


def test_a_closed_experiment_is_not_reported_frame_by_frame(desk: Desk) -> None:
    desk.record(Segmented(id=1, row=desk.row()))
    desk.store.close(desk.experiment)
    again = ExperimentStore(desk.box.home.frames, desk.box.home.results)
    changed, new = again.scan()
    sink = Sink()
    OutcomeRecorder(again, sink).report(changed, new)
    assert [e.event for e in sink.events] == ["experiment"]
    assert isinstance(desk.experiment, Experiment)
    assert replace(desk.experiment).closed is not None
