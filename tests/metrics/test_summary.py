"""Sums over frames: equal to stardist's, defined when nothing is there, strata apart."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellfleet.errors import MetricsError
from cellfleet.metrics import THRESHOLDS, match, numbers_of, summarise
from support_labels import Labels, compact, label_pairs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stardist.matching import matching_dataset


@given(st.lists(label_pairs(), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_data_set_is_summed_up_as_stardist_does(frames: list[tuple[Labels, Labels]]) -> None:
    truth, predicted = [compact(t) for t, _ in frames], [compact(p) for _, p in frames]
    numbers = numbers_of([match(t, p) for t, p in zip(truth, predicted, strict=True)])
    if numbers.true + numbers.predicted == 0:
        assert numbers.ap50 == numbers.map == 1.0
        return
    theirs: Any = [
        matching_dataset(truth, predicted, thresh=t, by_image=False, show_progress=False) for t in THRESHOLDS
    ]
    assert list(numbers.ap.values()) == pytest.approx([t.accuracy for t in theirs])
    assert numbers.map == pytest.approx(np.mean([t.accuracy for t in theirs]))
    assert (numbers.precision, numbers.recall, numbers.f1) == pytest.approx(
        (theirs[0].precision, theirs[0].recall, theirs[0].f1)
    )
    assert numbers.mean_iou == pytest.approx(theirs[0].mean_matched_score)


def test_foreground_count_and_confluence() -> None:
    truth, predicted = np.array([[1, 1, 2, 0]]), np.array([[1, 0, 0, 3]])
    numbers = numbers_of([match(truth, predicted), match(np.zeros((1, 4), np.int32), np.zeros((1, 4), np.int32))])
    assert numbers.dice == pytest.approx(2 * 1 / 5)
    assert numbers.iou == pytest.approx(1 / 4)
    assert numbers.count_error == pytest.approx((0 / 2 + 0) / 2)
    assert numbers.confluence_error == pytest.approx((25.0 + 0) / 2)


@pytest.mark.parametrize(("true", "predicted", "error"), [(2, 1, 0.5), (1, 3, 2.0), (0, 3, 3.0), (3, 0, 1.0)])
def test_the_count_error_is_relative_to_the_truth_and_never_negative(true: int, predicted: int, error: float) -> None:
    truth, found = (np.arange(4)[None] * (np.arange(4) <= n) for n in (true, predicted))
    numbers = numbers_of([match(truth, found)])
    assert numbers.count_error == pytest.approx(error)
    assert numbers.confluence_error == pytest.approx(25 * abs(true - predicted))


def test_errors_of_frames_do_not_cancel() -> None:
    one, two = np.array([[1, 0, 0, 0]]), np.array([[1, 2, 0, 0]])
    numbers = numbers_of([match(one, two), match(two, one)])
    assert numbers.count_error == pytest.approx((1 + 0.5) / 2)
    assert numbers.confluence_error == pytest.approx(25)


def test_nothing_there_and_nothing_found_is_perfect() -> None:
    nothing, cell = np.zeros((1, 4), np.int32), np.array([[1, 1, 0, 0]])
    right, false, missed = (
        numbers_of([match(t, p)]) for t, p in ((nothing, nothing), (nothing, cell), (cell, nothing))
    )
    assert (right.ap50, right.precision, right.recall, right.f1, right.dice, right.iou) == (1,) * 6
    for wrong in (false, missed):
        assert (wrong.ap50, wrong.precision, wrong.recall, wrong.f1, wrong.dice, wrong.iou) == (0,) * 6
    assert right.mean_iou == false.mean_iou == 0


def test_strata_are_kept_apart() -> None:
    a, b = np.array([[1]]), np.array([[0]])
    summary = summarise([match(a, a), match(a, b)], ["good", "bad"])
    assert (summary.strata["good"].ap50, summary.strata["bad"].ap50, summary.overall.ap50) == (1.0, 0.0, 0.5)
    assert list(summary.strata) == ["bad", "good"]


def test_nothing_to_sum_up() -> None:
    with pytest.raises(MetricsError, match="no frame"):
        summarise([], [])
    with pytest.raises(MetricsError, match="1 scores but 0 strata"):
        summarise([match(np.zeros((1, 1), int), np.zeros((1, 1), int))], [])


def test_each_threshold_has_a_number_of_its_own() -> None:
    truth, predicted = np.ones((1, 25), np.int32), np.zeros((1, 25), np.int32)
    predicted[0, :13] = 1  # an IoU of 0.52
    numbers = numbers_of([match(truth, predicted)])
    assert numbers.ap50 == 1.0
    assert numbers.map == pytest.approx(0.1)
    assert numbers.ap == {f"{t:.2f}": float(t == 0.5) for t in THRESHOLDS}
