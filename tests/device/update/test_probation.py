"""Limits of probation: the limit itself is good, one step beyond it and NaN are bad."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cellfleet.config.fleet import AgentSection
from cellfleet.device.interfaces import FrameOutcome, SegmenterFailure, WorkSnapshot
from cellfleet.device.update.journal import Tally
from cellfleet.device.update.probation import KEPT_TIMES, add, judge
from cellfleet.wire.reason import text_reason

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LIMITS = AgentSection(
    probation_frames=10,
    probation_s=100,
    probation_max_ms=1000,
    probation_max_slowdown=2,
    probation_max_memory_mb=400,
    probation_max_errors=3,
)
NAN = float("nan")


def event_of(tally: Tally, waited_s: float = 0.0, limits: AgentSection = LIMITS) -> str | None:
    return judge(tally, limits, NOW, NOW + timedelta(seconds=waited_s)).event


@pytest.mark.parametrize(
    ("at_limit", "beyond"),
    [
        (Tally(failed=3), Tally(failed=4)),
        (Tally(failed=1, crashes=1, hangs=1), Tally(failed=1, crashes=2, hangs=1)),
        (Tally(hangs=3), Tally(hangs=4)),
        (Tally(times_ms=(1000.0,) * 5), Tally(times_ms=(1000.1,) * 5)),
        (Tally(times_ms=(180.0,) * 5, base_ms=90.0), Tally(times_ms=(180.1,) * 5, base_ms=90.0)),
        (Tally(times_ms=(1.0,) * 5, memory_mb=400), Tally(times_ms=(1.0,) * 5, memory_mb=400.1)),
        (Tally(times_ms=(1.0,) * 4, memory_mb=800), Tally(times_ms=(1.0,) * 4, memory_mb=800.1)),
        (Tally(), Tally.model_construct(times_ms=(NAN,) * 5)),
        (Tally(), Tally.model_construct(times_ms=(NAN,) * 5, base_ms=90.0)),
        (Tally(), Tally.model_construct(memory_mb=NAN)),
    ],
)
def test_the_limit_itself_is_good(at_limit: Tally, beyond: Tally) -> None:
    assert event_of(at_limit) is None
    assert event_of(at_limit, waited_s=100) == "good"
    assert event_of(beyond) == event_of(beyond, waited_s=100) == "bad"


def test_it_ends_with_its_last_frame_or_with_its_time() -> None:
    assert event_of(Tally(segmented=9), waited_s=99.9) is None
    assert event_of(Tally(segmented=10), waited_s=99.9) == "good"
    assert event_of(Tally(segmented=9), waited_s=100) == "good"


def test_a_probation_shorter_than_five_frames_judges_times_all_the_same() -> None:
    short = LIMITS.model_copy(update={"probation_frames": 2})
    assert event_of(Tally(segmented=1, times_ms=(9000.0,)), limits=short) is None
    assert event_of(Tally(segmented=2, times_ms=(9000.0,) * 2), limits=short) == "bad"


def frame(slot: str, milliseconds: float) -> FrameOutcome:
    return FrameOutcome("e", "f", slot, "segmented", milliseconds, 10.0, True, NOW)


def test_the_newest_times_are_kept() -> None:
    snapshot = WorkSnapshot(frames=tuple(frame("s", float(i)) for i in range(KEPT_TIMES + 50)))
    tally = add(Tally(times_ms=(-1.0,)), snapshot, "s")
    assert tally.times_ms == tuple(float(i) for i in range(50, KEPT_TIMES + 50))
    assert tally.segmented == KEPT_TIMES + 50


def test_the_greatest_memory_of_the_slot_stays() -> None:
    """Of its segmenter and of each of its frames; other slots' do not count, nor does their trouble."""
    first = add(Tally(), WorkSnapshot(memory_mb={"s": 300.0, "other": 900.0}), "s")
    second = add(first, WorkSnapshot(frames=(frame("s", 1.0),), memory_mb={"s": 20.0}), "s")
    assert (first.memory_mb, second.memory_mb) == (300.0, 300.0)
    crash = SegmenterFailure("other", "crash", text_reason("x"), NOW)
    assert add(Tally(), WorkSnapshot(frames=(frame("other", 1.0),), failures=(crash,)), "s") == Tally()
