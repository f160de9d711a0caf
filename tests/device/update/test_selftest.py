"""Limits of the self-test: the limit itself passes, NaN never does."""

from __future__ import annotations

from typing import Any

import pytest

from cellfleet.canonical import canonical_bytes
from cellfleet.config.fleet import AgentSection
from cellfleet.device.interfaces import GoldenOutcome, SelfTested
from cellfleet.device.update.selftest import Judged, choose, judge
from cellfleet.wire.reason import Reason, because, english, text_reason

LIMITS = AgentSection(min_golden_ap50=0.5, max_golden_loss_ap50=0.125, selftest_max_ms=80, selftest_max_memory_mb=200)
NAN = float("nan")


def golden(**fields: Any) -> GoldenOutcome:
    at_limits = {"ap50": 0.75, "agreement": 0.9, "least_ap50": 0.75, "least_agreement": 0.9, "worst_ms": 80.0}
    return GoldenOutcome(**{"of": "x", **at_limits, **fields})


def passes(own: GoldenOutcome, other: GoldenOutcome | None = None, memory_mb: float = 200.0) -> bool:
    results = (own,) if other is None else (own, other)
    tested = SelfTested("onnxruntime/fp32", "run", memory_mb, results)
    return judge(tested, LIMITS, None if other is None else 0.75).reasons == ()


def test_everything_at_its_limit_passes() -> None:
    assert passes(golden())
    assert passes(golden(), golden(ap50=0.625))


@pytest.mark.parametrize(
    "own",
    [
        golden(ap50=0.7499),
        golden(ap50=0.4999, least_ap50=0.0),
        golden(agreement=0.8999),
        golden(worst_ms=80.1),
        golden(ap50=NAN),
        golden(agreement=NAN),
        golden(worst_ms=NAN),
    ],
)
def test_its_own_golden_frames_beyond_a_limit(own: GoldenOutcome) -> None:
    assert not passes(own)


@pytest.mark.parametrize("own_least", [0.0, 0.5])
def test_the_absolute_minimum_itself_passes(own_least: float) -> None:
    assert passes(golden(ap50=0.5, least_ap50=own_least))


@pytest.mark.parametrize("other", [golden(ap50=0.6249), golden(ap50=NAN), golden(worst_ms=NAN), golden(worst_ms=80.1)])
def test_the_active_bundle_s_golden_frames_beyond_a_limit(other: GoldenOutcome) -> None:
    assert not passes(golden(), other)


def test_what_the_builder_of_the_active_bundle_saw_is_not_asked_for() -> None:
    """Its minima hold for its own model: another one may find less within the allowed loss, and agree less."""
    assert passes(golden(), golden(ap50=0.7, least_ap50=0.9, agreement=NAN))


def test_a_loss_down_to_the_absolute_minimum_is_reported() -> None:
    tested = SelfTested("v", "run", 1.0, (golden(), golden(ap50=0.5)))
    assert len(judge(tested, LIMITS, 0.75).reasons) == 1


@pytest.mark.parametrize("memory_mb", [200.1, NAN])
def test_memory_beyond_its_limit(memory_mb: float) -> None:
    assert not passes(golden(), memory_mb=memory_mb)


def reasons_of(*results: GoldenOutcome, active_ap50: float | None = None) -> tuple[Reason, ...]:
    return judge(SelfTested("v", "run", 1.0, results), LIMITS, active_ap50).reasons


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ((golden(ap50=0.7),), because("selftest.ap50", ap50=0.7, limit=0.75)),
        ((golden(ap50=0.4, least_ap50=0.3),), because("selftest.ap50", ap50=0.4, limit=0.5)),
        ((golden(agreement=0.8),), because("selftest.agreement", agreement=0.8, limit=0.9)),
        ((golden(worst_ms=90.0),), because("selftest.time", ms=90.0, limit_ms=80.0)),
        ((golden(problem="unreadable", ap50=0.0),), because("selftest.frames", detail="unreadable")),
        ((golden(), golden(ap50=0.4)), because("selftest.ap50-active", ap50=0.4, limit=0.5)),
        ((golden(), golden(worst_ms=90.0)), because("selftest.time-active", ms=90.0, limit_ms=80.0)),
        ((golden(), golden(problem="odd", ap50=0.0)), because("selftest.frames-active", detail="odd")),
        ((golden(), golden(problem="odd", ap50=0.55)), because("selftest.frames-active", detail="odd")),
        ((golden(), golden(ap50=0.5)), because("selftest.ap50-loss", ap50=0.5, active=0.75, limit=0.125)),
    ],
)
def test_each_reason_names_the_value_and_its_limit(results: tuple[GoldenOutcome, ...], expected: Reason) -> None:
    assert reasons_of(*results, active_ap50=None if len(results) == 1 else 0.75) == (expected,)


def test_each_limit_that_is_exceeded_is_reported() -> None:
    wrong = golden(ap50=0.4, agreement=0.1, worst_ms=90.0)
    assert [r.code for r in reasons_of(wrong, wrong)] == [
        "selftest.ap50", "selftest.agreement", "selftest.time", "selftest.ap50-active", "selftest.time-active",
    ]  # fmt: skip


def test_without_an_active_bundle_nothing_is_compared_with_it() -> None:
    assert reasons_of(golden()) == ()
    assert reasons_of(golden(), golden(ap50=0.5)) == ()


def test_an_active_model_that_finds_nothing_is_compared_all_the_same() -> None:
    assert reasons_of(golden(), active_ap50=0.0) == (because("selftest.active-not-run"),)


@pytest.mark.parametrize("active_ap50", [None, 0.75])
def test_no_results(active_ap50: float | None) -> None:
    """A problem of the segmenter is its own reason, else their absence is one; nothing is reported twice."""
    crashed = SelfTested("v", "run", 1.0, (), text_reason("crashed"))
    assert judge(crashed, LIMITS, active_ap50).reasons == (text_reason("crashed"),)
    assert judge(SelfTested("v", "run", 1.0, ()), LIMITS, active_ap50).reasons == (because("selftest.no-results"),)


def test_a_problem_beside_good_results_is_a_reason() -> None:
    tested = SelfTested("v", "run", 1.0, (golden(),), text_reason("crashed"))
    assert judge(tested, LIMITS, None).reasons == (text_reason("crashed"),)


def test_memory_is_a_reason_beside_the_others() -> None:
    tested = SelfTested("v", "run", 300.0, (golden(agreement=0.8),))
    memory = because("selftest.memory", memory_mb=300.0, limit_mb=200.0)
    assert [r.code for r in judge(tested, LIMITS, None).reasons] == ["selftest.agreement", "selftest.memory"]
    assert judge(tested, LIMITS, None).reasons[-1] == memory


def test_what_is_reported_of_a_variant() -> None:
    tested = SelfTested("onnxruntime/fp32", "run", 150.0, (golden(worst_ms=70.0), golden(ap50=0.5, worst_ms=75.0)))
    loss = because("selftest.ap50-loss", ap50=0.5, active=0.75, limit=0.125)
    expected = {
        "ap50": 0.75,
        "agreement": 0.9,
        "least_agreement": 0.9,
        "worst_ms": 75.0,
        "memory_mb": 150.0,
        "active_golden_ap50": 0.5,
        "active_ap50": 0.75,
        "reasons": [english(loss)],
    }
    assert judge(tested, LIMITS, 0.75) == Judged("onnxruntime/fp32", "run", 75.0, (loss,), expected)


def test_what_is_reported_without_results() -> None:
    found = judge(SelfTested("v", "", 0.0, (), text_reason("crashed")), LIMITS, None)
    assert found.worst_ms == 0.0
    assert found.numbers == {
        "ap50": None,
        "agreement": None,
        "least_agreement": None,
        "worst_ms": 0.0,
        "memory_mb": 0.0,
        "active_golden_ap50": None,
        "active_ap50": None,
        "reasons": ["crashed"],
    }


def test_what_is_reported_of_its_own_golden_frames_alone() -> None:
    numbers = judge(SelfTested("v", "run", NAN, (golden(ap50=NAN),)), LIMITS, None).numbers
    assert (numbers["ap50"], numbers["memory_mb"], numbers["active_golden_ap50"]) == (None, None, None)
    assert (numbers["agreement"], numbers["worst_ms"]) == (0.9, 80.0)


def test_numbers_can_be_written() -> None:
    wild = golden(ap50=NAN, agreement=float("-inf"), worst_ms=float("inf"))
    numbers = judge(SelfTested("v", "run", float("inf"), (wild, wild)), LIMITS, 0.75).numbers
    assert canonical_bytes(numbers)
    assert {k for k, v in numbers.items() if v is None} == {
        "ap50", "agreement", "worst_ms", "memory_mb", "active_golden_ap50",
    }  # fmt: skip


def variant(name: str, worst_ms: float, *reasons: Reason) -> Judged:
    return Judged(name, "run-" + name, worst_ms, reasons, {"worst_ms": worst_ms})


SLOW, FAST, BAD = variant("slow", 30.4), variant("fast", 9.6), variant("bad", 1.0, text_reason("broke"))
WORSE = variant("worse", 2.0, text_reason("one"), text_reason("two"))
BAD_REASON = because("selftest.variant", text_reason("broke"), variant="bad")
WORSE_REASON = because("selftest.variant", text_reason("one"), text_reason("two"), variant="worse")
FASTEST = because("selftest.fastest", variant="fast", times="fast 10 ms, slow 30 ms")


@pytest.mark.parametrize(
    ("judged", "wanted", "chosen", "reason"),
    [
        ([SLOW, FAST], "", FAST, FASTEST),
        ([SLOW, BAD, FAST], "", FAST, because("several", FASTEST, because("selftest.not-used", BAD_REASON))),
        ([SLOW, FAST], "slow", SLOW, because("selftest.wanted", variant="slow", ms=30.4)),
        ([BAD], "", None, BAD_REASON),
        ([BAD, WORSE], "", None, because("several", BAD_REASON, WORSE_REASON)),
        ([BAD, FAST], "bad", None, BAD_REASON),
        ([FAST], "other", None, because("selftest.no-variant")),
        ([], "", None, because("selftest.no-variant")),
    ],
)
def test_choices(judged: list[Judged], wanted: str, chosen: Judged | None, reason: Reason) -> None:
    found = choose(judged, wanted)
    assert (found.chosen, found.reason) == (chosen, reason)
    assert found.numbers == {j.variant: j.numbers for j in judged}


def test_a_wanted_variant_is_reported_with_those_that_are_not_used() -> None:
    reason = choose([FAST, WORSE], "fast").reason
    not_used = because("selftest.not-used", WORSE_REASON)
    assert reason == because("several", because("selftest.wanted", variant="fast", ms=9.6), not_used)


def test_of_equally_fast_variants_the_first_is_chosen() -> None:
    assert choose([variant("b", 5.0), variant("a", 5.0)]).chosen == variant("b", 5.0)
