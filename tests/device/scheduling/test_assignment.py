"""The pure rules: who segments an experiment, which segmenters are needed, what a segmenter does next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.device.camera.frame_store import ExperimentFile, FrameFile
from cellfleet.device.scheduling.assignment import (
    LIVE_S,
    TABLES_EVERY,
    has_run,
    has_segmented,
    is_done,
    needed_slots,
    next_tables,
    next_task,
    slot_of,
)
from cellfleet.device.scheduling.experiments import Experiment, FrameTally
from cellfleet.device.scheduling.pins import Outcome, Pin
from cellfleet.wire.telemetry_events import FrameFailed, FrameSegmented, FrameTaken

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
A, B = "a" * 64, "b" * 64
RUN = "1" * 64


def frame(name: str, age_s: float = 0.0) -> FrameFile:
    taken = FrameTaken(
        experiment="e", frame=name, index=0, well="A1", time_s=0, taken_at=NOW - timedelta(seconds=age_s),
        sha256="0" * 64, bytes=1,
    )  # fmt: skip
    return FrameFile(taken=taken, file=f"{name}.png", original="x.png", position=0)


def experiment(
    *ages_s: float, name: str = "e1", slot: str | None = A, done: int = 0, tables_at: int = 0, at: datetime = NOW
) -> Experiment:
    """Its frames, of these ages; the first ones are done."""
    facts = ExperimentFile(experiment=name, number=1, plate="P", channels=("phase",), started_at=NOW)
    found = Experiment(facts, Path(name), tables_at=tables_at)
    if slot is not None:
        found.pins.append(Pin(number=1, bundle_sha256=slot, run_digest=RUN if slot else "", at=at))
    found.frames = {f"{name}-f{i:03d}": frame(f"{name}-f{i:03d}", age) for i, age in enumerate(ages_s)}
    found.outcomes = dict.fromkeys(list(found.frames)[:done], "segmented")
    return found


def goes_on(_: Experiment) -> bool:
    return False


def is_over(_: Experiment) -> bool:
    return True


@pytest.mark.parametrize(
    ("slot", "active", "found"),
    [(None, "", ""), (None, A, A), ("", "", ""), ("", A, A), (B, A, B), (B, "", B)],
)
def test_the_slot_of_an_experiment(slot: str | None, active: str, found: str) -> None:
    assert slot_of(experiment(slot=slot), active) == found


@pytest.mark.parametrize(
    ("frames", "done", "ended", "tables_at", "is_needed"),
    [
        (2, 2, False, 0, True),
        (2, 1, True, -1, True),
        (2, 2, True, 0, True),
        (2, 2, True, -1, False),
        (0, 0, True, 0, False),
        (0, 0, False, 0, True),
    ],
    ids=["goes on", "frame left", "tables left", "done", "no frames", "begins"],
)
def test_when_a_segmenter_is_needed(frames: int, done: int, ended: bool, tables_at: int, is_needed: bool) -> None:
    one = experiment(*[0.0] * frames, slot=B, done=done, tables_at=tables_at)
    has_ended = is_over if ended else goes_on
    assert needed_slots([one], A, has_ended) == ({A, B} if is_needed else {A})
    assert is_done(one, has_ended) is not is_needed


def test_no_segmenter_is_needed_for_frames_that_wait_for_a_slot() -> None:
    assert needed_slots([experiment(0.0, slot=""), experiment(0.0, slot=None)], "", goes_on) == set()
    assert needed_slots([], "", goes_on) == set()


@pytest.mark.parametrize(("age_s", "live"), [(0.0, True), (LIVE_S - 0.001, True), (LIVE_S, False), (3600.0, False)])
def test_how_long_a_frame_is_live(age_s: float, live: bool) -> None:
    task = next_task([experiment(age_s)], NOW)
    assert task is not None
    assert task.live is live


@given(
    ages=st.lists(st.lists(st.floats(0, 200), max_size=6), max_size=4),
    done=st.sets(st.integers(0, 30)),
    again=st.sets(st.integers(0, 30)),
)
def test_every_frame_comes_once_live_ones_first(ages: list[list[float]], done: set[int], again: set[int]) -> None:
    """Work until nothing is left: each frame without an outcome comes once, live ones first, each kind in its order."""
    experiments = [experiment(*each, name=f"e{i}") for i, each in enumerate(ages)]
    everything = [(e, name) for e in experiments for name in e.frames]
    for i, (e, name) in enumerate(everything):
        if i in done:
            e.outcomes[name] = "failed"
        if i in again:
            e.before.add(name)
    waiting = [(e, name) for e, name in everything if name not in e.outcomes]
    is_live = {name: (NOW - e.frames[name].taken.taken_at).total_seconds() < LIVE_S and name not in e.before
               for e, name in waiting}  # fmt: skip
    came = []
    while (task := next_task(experiments, NOW)) is not None:
        name = task.frame.taken.frame
        assert task.live is is_live[name]
        came.append(name)
        task.experiment.outcomes[name] = "segmented"
    names = [name for _, name in waiting]
    assert came == [n for n in names if is_live[n]] + [n for n in names if not is_live[n]]


@pytest.mark.parametrize(
    ("done", "tables_at", "ended", "due"),
    [
        (0, 0, True, False),
        (1, 0, True, True),
        (1, -1, True, False),
        (TABLES_EVERY - 1, 0, False, False),
        (TABLES_EVERY, 0, False, True),
        (TABLES_EVERY, 1, False, False),
        (TABLES_EVERY + 1, 1, False, True),
        (TABLES_EVERY, -1, False, True),
    ],
)
def test_when_tables_are_due(done: int, tables_at: int, ended: bool, due: bool) -> None:
    one = experiment(*[0.0] * done, done=done, tables_at=tables_at)
    assert next_tables([one], RUN, is_over if ended else goes_on) is (one if due else None)


def test_tables_of_an_experiment_that_has_frames_left_wait() -> None:
    assert next_tables([experiment(0.0, 0.0, done=1)], RUN, is_over) is None


def test_a_segmenter_writes_the_tables_of_its_own_run_only() -> None:
    mine, other, unpinned = (experiment(0.0, done=1, slot=slot) for slot in (A, A, None))
    other.pins[-1] = other.pins[-1].model_copy(update={"run_digest": "2" * 64})
    assert [has_run(e, RUN) for e in (mine, other, unpinned)] == [True, False, False]
    assert next_tables([unpinned, other, mine], RUN, is_over) is mine


def mask(at: datetime, pin: int = 1) -> FrameSegmented:
    return FrameSegmented(
        experiment="e1", frame="f", pin=pin, run_digest=RUN, bundle_sha256=A, variant="x", count=1,
        confluence_percent=1, mask_sha256="0" * 64, segmented_at=at,
    )  # fmt: skip


def failure(at: datetime) -> FrameFailed:
    return FrameFailed(experiment="e1", frame="f", pin=1, reason="x", failed_at=at)


@pytest.mark.parametrize(
    ("closed", "pinned_at", "outcomes", "found"),
    [
        (False, NOW - HOUR, [], True),
        (True, NOW - HOUR, [], False),
        (True, NOW, [], True),
        (True, NOW - timedelta(seconds=1), [], True),
        (True, NOW - timedelta(seconds=1.1), [], False),
        (True, NOW - HOUR, [mask(NOW - HOUR)], False),
        (True, NOW - HOUR, [mask(NOW - HOUR), mask(NOW)], True),
        (True, NOW - HOUR, [mask(NOW, pin=2)], False),
        (True, NOW - HOUR, [failure(NOW)], False),
    ],
)
def test_what_a_slot_has_segmented(closed: bool, pinned_at: datetime, outcomes: list[Outcome], found: bool) -> None:
    one = experiment(at=pinned_at)
    one.closed = FrameTally() if closed else None
    assert has_segmented(one, A, NOW, lambda _: outcomes) is found
    assert not has_segmented(one, B, NOW, lambda _: outcomes)
    assert not has_segmented(experiment(slot=None), A, NOW, lambda _: outcomes)
