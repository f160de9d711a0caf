"""Limits of probation: the limit itself is good, one step beyond it and NaN are bad."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cellfleet.config.fleet import AgentSection
from cellfleet.device.interfaces import FailureKind, FrameOutcome, SegmenterFailure, WorkSnapshot
from cellfleet.device.update.journal import Tally
from cellfleet.device.update.probation import KEPT_TIMES, add, judge, median_ms
from cellfleet.wire.reason import Reason, because, text_reason

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


def failed(slot: str, reason: str) -> FrameOutcome:
    return FrameOutcome("e", "f", slot, "failed", 5000.0, 70.0, True, NOW, text_reason(reason))


def failure(slot: str, kind: FailureKind, reason: str) -> SegmenterFailure:
    return SegmenterFailure(slot, kind, text_reason(reason), NOW)


def test_all_that_one_poll_adds() -> None:
    before = Tally(
        segmented=1, failed=20, crashes=300, hangs=4000, times_ms=(7.0,), base_ms=6.0, memory_mb=5.0,
        last_trouble=text_reason("old"),
    )  # fmt: skip
    snapshot = WorkSnapshot(
        frames=(frame("s", 8.0), frame("s", 9.0), failed("s", "unreadable"), failed("other", "x"), frame("other", 1.0)),
        failures=(
            failure("s", "crash", "out of memory"),
            failure("s", "hang", "no answer"),
            failure("other", "hang", "x"),
            failure("s", "hang", "no answer again"),
        ),
        memory_mb={"s": 60.0},
    )
    assert add(before, snapshot, "s") == Tally(
        segmented=3, failed=21, crashes=301, hangs=4002, times_ms=(7.0, 8.0, 9.0), base_ms=6.0, memory_mb=70.0,
        last_trouble=text_reason("no answer again"),
    )  # fmt: skip


def test_a_poll_without_news_changes_nothing() -> None:
    before = Tally(segmented=1, times_ms=(7.0,), memory_mb=5.0, last_trouble=text_reason("old"))
    assert add(before, WorkSnapshot(), "s") == before


def test_a_failed_frame_is_the_last_trouble_where_no_segmenter_failed() -> None:
    snapshot = WorkSnapshot(frames=(failed("s", "first"), failed("s", "second")))
    assert add(Tally(last_trouble=text_reason("old")), snapshot, "s").last_trouble == text_reason("second")


def test_exactly_the_kept_times_fit() -> None:
    snapshot = WorkSnapshot(frames=tuple(frame("s", float(i)) for i in range(KEPT_TIMES - 1)))
    assert KEPT_TIMES == 200
    assert len(add(Tally(times_ms=(-2.0, -1.0)), snapshot, "s").times_ms) == KEPT_TIMES
    assert add(Tally(times_ms=(-1.0,)), snapshot, "s").times_ms[0] == -1.0


@pytest.mark.parametrize(("times", "median"), [((), None), ((3.0,), 3.0), ((9.0, 1.0, 2.0), 2.0), ((1.0, 2.0), 1.5)])
def test_medians(times: tuple[float, ...], median: float | None) -> None:
    assert median_ms(iter(times)) == median


def test_counts_and_limits_are_reported() -> None:
    tally = Tally(
        segmented=1,
        failed=2,
        crashes=3,
        hangs=4,
        times_ms=(5.0, 6.0, 9.0),
        base_ms=7.0,
        memory_mb=8.0,
        last_trouble=None,
    )
    assert judge(tally, LIMITS, NOW, NOW).numbers == {
        "frames": 1,
        "failed": 2,
        "crashes": 3,
        "hangs": 4,
        "median_ms": 6.0,
        "before_ms": 7.0,
        "memory_mb": 8.0,
        "max_ms": 1000,
        "max_slowdown": 2,
        "max_memory_mb": 400,
        "max_errors": 3,
    }


LAST = text_reason("no answer")
SLOW = (200.0,) * 5


@pytest.mark.parametrize(
    ("tally", "event", "reason"),
    [
        (Tally(segmented=4), None, because("probation.running", frames=4, wanted=10)),
        (Tally(segmented=11), "good", because("probation.passed", frames=11)),
        (
            Tally(failed=1, crashes=2, hangs=3),
            "bad",
            because("probation.errors", failed=1, crashes=2, hangs=3, limit=3),
        ),
        (
            Tally(failed=1, crashes=2, hangs=3, last_trouble=LAST),
            "bad",
            because("probation.errors-last", LAST, failed=1, crashes=2, hangs=3, limit=3),
        ),
        (Tally(memory_mb=801.0), "bad", because("probation.memory", memory_mb=801.0, limit_mb=400.0)),
        (
            Tally(times_ms=(1.0,) * 5, memory_mb=401.0),
            "bad",
            because("probation.memory", memory_mb=401.0, limit_mb=400.0),
        ),
        (Tally(times_ms=(1001.0,) * 5), "bad", because("probation.time", ms=1001.0, limit_ms=1000.0)),
        (Tally(times_ms=SLOW, base_ms=90.0), "bad", because("probation.slower", ms=200.0, before_ms=90.0, factor=2.0)),
    ],
)
def test_each_reason_names_the_value_and_its_limit(tally: Tally, event: str | None, reason: Reason) -> None:
    verdict = judge(tally, LIMITS, NOW, NOW)
    assert (verdict.event, verdict.reason) == (event, reason)
    assert (verdict.numbers["frames"], verdict.numbers["memory_mb"]) == (tally.segmented, tally.memory_mb)


def test_the_end_of_the_time_is_reported_with_its_frames() -> None:
    verdict = judge(Tally(segmented=4), LIMITS, NOW, NOW + timedelta(seconds=130))
    assert verdict.reason == because("probation.time-over", frames=4, wanted=10, seconds=130.0)
    assert verdict.numbers["frames"] == 4


def test_each_limit_that_is_exceeded_is_reported() -> None:
    """Also where there are enough frames, and where the time is over."""
    tally = Tally(segmented=10, failed=4, times_ms=(1001.0,) * 5, base_ms=90.0, memory_mb=401.0)
    codes = ["probation.errors", "probation.memory", "probation.time", "probation.slower"]
    for waited_s in (0, 100):
        verdict = judge(tally, LIMITS, NOW, NOW + timedelta(seconds=waited_s))
        assert verdict.event == "bad"
        assert [r.code for r in verdict.reason.parts] == codes


@pytest.mark.parametrize("base_ms", [None, 0.0])
def test_without_times_of_the_previous_slot_only_the_absolute_limit_holds(base_ms: float | None) -> None:
    assert event_of(Tally(times_ms=(1000.0,) * 5, base_ms=base_ms)) is None
    assert event_of(Tally(times_ms=(1000.1,) * 5, base_ms=base_ms)) == "bad"


def test_the_first_frames_are_not_judged_by_their_time() -> None:
    assert event_of(Tally(times_ms=(9000.0,) * 4, base_ms=90.0)) is None
    assert event_of(Tally(times_ms=(9000.0,) * 5, base_ms=90.0)) == "bad"


def test_a_few_slow_frames_among_many_are_not_bad() -> None:
    assert event_of(Tally(times_ms=(100.0,) * 3 + (9000.0,) * 2, base_ms=90.0)) is None
    assert event_of(Tally(times_ms=(100.0,) * 2 + (9000.0,) * 3, base_ms=90.0)) == "bad"


def test_without_allowed_failures_the_first_one_is_bad() -> None:
    strict = LIMITS.model_copy(update={"probation_max_errors": 0})
    assert event_of(Tally(), limits=strict) is None
    assert [event_of(t, limits=strict) for t in (Tally(failed=1), Tally(crashes=1), Tally(hangs=1))] == ["bad"] * 3
