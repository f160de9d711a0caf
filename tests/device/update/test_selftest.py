"""Limits of the self-test: the limit itself passes, NaN never does."""

from __future__ import annotations

from typing import Any

import pytest

from cellfleet.config.fleet import AgentSection
from cellfleet.device.interfaces import GoldenOutcome, SelfTested
from cellfleet.device.update.selftest import judge

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
