"""The gate: every threshold can fail, and each number that failed is named."""

from __future__ import annotations

from typing import Any

import pytest

from cellfleet.config.model import GateSection
from cellfleet.evaluate import Champion, gate, policy_digest
from support_evaluation import evaluation, numbers

NOTHING: dict[str, Any] = dict.fromkeys(GateSection.model_fields)
CHAMPION = Champion("old", "1.0.0", "c" * 64, "onnxruntime/fp32", {"ap50": 0.92})

# field of the policy, threshold, value of the numbers, what the reason says
FAILING = [
    ("min_ap50", 0.95, {"ap50": 0.9}, "AP@0.5 is 0.900; the minimum is 0.95"),
    ("min_map", 0.85, {"map": 0.8}, "Mean AP is 0.800; the minimum is 0.85"),
    ("min_dice", 0.99, {"dice": 0.95}, "Dice is 0.950; the minimum is 0.99"),
    ("max_count_error", 0.01, {"count_error": 0.02}, "Count error is 0.020; the maximum is 0.01"),
    ("max_confluence_error", 0.4, {"confluence_error": 0.5}, "points) is 0.500; the maximum is 0.4"),
    ("min_stratum_ap50", 0.95, {"ap50": 0.9}, "AP@0.5 of A is 0.900; the minimum is 0.95"),
    ("max_champion_loss_ap50", 0.01, {"ap50": 0.9}, "0.020 below the 0.920 of the champion old 1.0.0"),
]


def test_every_threshold_of_the_policy_is_tried() -> None:
    assert {f[0] for f in FAILING} == set(GateSection.model_fields)


@pytest.mark.parametrize(("field", "threshold", "values", "reason"), FAILING)
def test_a_number_that_failed_is_named(field: str, threshold: float, values: dict[str, float], reason: str) -> None:
    policy = GateSection(**{**NOTHING, field: threshold})
    verdict = gate(evaluation(numbers(**values)), policy, CHAMPION)
    assert not verdict.passed
    assert len(verdict.checks) == 1
    assert verdict.checks[0].name.startswith(field)
    assert reason in verdict.reasons[0]


@pytest.mark.parametrize(("field", "threshold", "values", "reason"), FAILING)
def test_a_number_at_its_threshold_passes(field: str, threshold: float, values: dict[str, float], reason: str) -> None:
    del threshold, reason
    at = 0.92 - 0.9 if "champion" in field else next(iter(values.values()))
    verdict = gate(evaluation(numbers(**values)), GateSection(**{**NOTHING, field: at}), CHAMPION)
    assert verdict.passed
    assert verdict.reasons == ()


def test_all_failures_are_named_at_once() -> None:
    strata = {"A": numbers(), "B": numbers(ap50=0.1), "C": numbers(ap50=0.2)}
    policy = GateSection(min_ap50=0.95, min_dice=0.5, max_count_error=0.01)
    verdict = gate(evaluation(strata=strata), policy)
    assert [c.name for c in verdict.checks if not c.passed] == [
        "min_ap50",
        "max_count_error",
        "min_stratum_ap50[B]",
        "min_stratum_ap50[C]",
    ]
    assert len(verdict.reasons) == 4
    assert verdict.code == "failed"


def test_a_champion_is_compared_only_when_there_is_one() -> None:
    assert "max_champion_loss_ap50" not in {c.name for c in gate(evaluation(), GateSection()).checks}
    better = gate(evaluation(numbers(ap50=0.95)), GateSection(), CHAMPION)
    assert better.passed
    assert "0.030 above the 0.920" in better.checks[-1].text
    assert gate(evaluation(numbers(ap50=0.91)), GateSection(), CHAMPION).passed  # a loss of 0.010000000000000009


def test_a_frame_that_was_trained_with_fails_the_gate() -> None:
    assert gate(evaluation(), GateSection(), used_in_training=()).passed
    verdict = gate(evaluation(), GateSection(), used_in_training=("b",))
    assert verdict.reasons == ("1 of the 2 frames were used to train or tune the model, such as b",)


def test_a_policy_that_asks_for_nothing_shows_nothing() -> None:
    verdict = gate(evaluation(), GateSection(**NOTHING))
    assert not verdict.passed
    assert "sets no threshold" in verdict.reasons[0]


def test_a_failed_number_never_looks_like_its_threshold() -> None:
    verdict = gate(evaluation(numbers(ap50=0.49996)), GateSection())
    assert verdict.reasons == ("AP@0.5 is 0.49996; the minimum is 0.5",)


def test_the_policy_has_a_digest() -> None:
    assert policy_digest(GateSection()) == policy_digest(GateSection(min_ap50=0.5))
    assert policy_digest(GateSection()) != policy_digest(GateSection(min_ap50=0.51))


def test_rounding_of_floating_point_numbers_is_no_failure() -> None:
    """Exactly 1e-9 beyond the threshold passes, the next number beyond that does not."""
    for field, threshold, name in (("min_ap50", 1e-9, "ap50"), ("max_count_error", 0.0, "count_error")):
        policy = GateSection(**{**NOTHING, field: threshold})
        value = 0.0 if field == "min_ap50" else 1e-9
        assert gate(evaluation(numbers(**{name: value})), policy).passed
    champion = Champion("old", "1.0.0", "c" * 64, "onnxruntime/fp32", {"ap50": 1e-9})
    policy = GateSection(**{**NOTHING, "max_champion_loss_ap50": 0.0})
    assert gate(evaluation(numbers(ap50=0.0)), policy, champion).passed
    assert not gate(evaluation(numbers(ap50=0.91)), policy, CHAMPION).passed


@pytest.mark.parametrize(
    ("ap50", "said"),
    [
        (0.92, "AP@0.5 is 0.920, the same as the 0.920 of the champion"),
        (0.9196, "AP@0.5 is 0.920, the same as the 0.920 of the champion"),
        (0.919, "AP@0.5 is 0.919, 0.001 below the 0.920 of the champion"),
        (0.921, "AP@0.5 is 0.921, 0.001 above the 0.920 of the champion"),
    ],
)
def test_the_difference_to_the_champion_in_words(ap50: float, said: str) -> None:
    assert said in gate(evaluation(numbers(ap50=ap50)), GateSection(), CHAMPION).checks[-1].text


@pytest.mark.parametrize("used", [(), ("a", "b")])
def test_no_frame_may_have_been_used(used: tuple[str, ...]) -> None:
    check = gate(evaluation(), GateSection(), used_in_training=used).checks[-1]
    assert (check.name, check.value, check.threshold, check.passed) == ("held_out", len(used), 0, not used)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.500"),
        (0.4996, "0.4996"),
        (0.49996, "0.49996"),
        (0.499996, "0.499996"),
        (0.4999996, "0.4999996"),
        (0.5000004, "0.5000004"),
        (0.50004, "0.50004"),
        (0.6, "0.600"),
    ],
)
def test_as_many_digits_as_it_takes_to_tell_a_number_from_its_threshold(value: float, shown: str) -> None:
    check = gate(evaluation(numbers(ap50=value)), GateSection(**{**NOTHING, "min_ap50": 0.5})).checks[0]
    assert check.text == f"AP@0.5 is {shown}; the minimum is 0.5"
