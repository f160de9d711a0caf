"""Metrics: equal to stardist's, defined for empty frames, and refusing what cannot be compared."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cellfleet.errors import MetricsError
from cellfleet.metrics import THRESHOLDS, match, numbers_of, summarise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stardist.matching import matching, matching_dataset

Labels = NDArray[np.int32]


def pairs(most: int = 5) -> st.SearchStrategy[tuple[Labels, Labels]]:
    shape = st.tuples(st.integers(1, 10), st.integers(1, 10))
    arrays = shape.flatmap(lambda s: st.tuples(*(hnp.arrays(np.int32, s, elements=st.integers(0, most)) for _ in "tp")))
    return arrays.map(lambda p: (p[0], p[1]))


def compact(a: Labels) -> Labels:
    return np.unique(np.concatenate([[0], a.ravel()]), return_inverse=True)[1][1:].reshape(a.shape).astype(np.int32)


@given(pairs())
@settings(max_examples=200, deadline=None)
def test_equal_to_stardist_at_every_threshold(pair: tuple[Labels, Labels]) -> None:
    truth, predicted = (compact(a) for a in pair)
    ours = match(truth, predicted)
    for i, threshold in enumerate(THRESHOLDS):
        theirs: Any = matching(truth, predicted, thresh=threshold)
        assert (ours.matched[i], ours.true, ours.predicted) == (theirs.tp, theirs.n_true, theirs.n_pred)
    assert len(ours.missed) == ours.true - ours.matched[0]
    assert len(ours.false) == ours.predicted - ours.matched[0]


def test_ties_at_one_half_are_matched_as_often_as_possible() -> None:
    # Both true objects overlap both predictions with IoU 1/2 or less; a greedy choice could match one pair only.
    truth = np.array([[1, 1, 0, 0], [1, 1, 2, 2]])
    predicted = np.array([[1, 1, 0, 0], [0, 0, 2, 2]])
    assert match(truth, predicted).matched[0] == matching(truth, predicted, thresh=0.5).tp == 2


@given(st.lists(pairs(), min_size=1, max_size=4))
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


@given(pairs(), st.integers(1, 2**31))
@settings(deadline=None)
def test_the_numbers_of_the_labels_do_not_matter(pair: tuple[Labels, Labels], offset: int) -> None:
    truth, predicted = pair
    moved = np.where(predicted > 0, predicted.astype(np.int64) + offset, 0)
    ours, same = match(truth, predicted), match(truth, moved)
    assert (same.matched, same.predicted, same.matched_iou) == (ours.matched, ours.predicted, ours.matched_iou)


def test_foreground_count_and_confluence() -> None:
    truth, predicted = np.array([[1, 1, 2, 0]]), np.array([[1, 0, 0, 3]])
    numbers = numbers_of([match(truth, predicted), match(np.zeros((1, 4), np.int32), np.zeros((1, 4), np.int32))])
    assert numbers.dice == pytest.approx(2 * 1 / 5)
    assert numbers.iou == pytest.approx(1 / 4)
    assert numbers.count_error == pytest.approx((0 / 2 + 0) / 2)
    assert numbers.confluence_error == pytest.approx((25.0 + 0) / 2)


def test_strata_are_kept_apart() -> None:
    a, b = np.array([[1]]), np.array([[0]])
    summary = summarise([match(a, a), match(a, b)], ["good", "bad"])
    assert (summary.strata["good"].ap50, summary.strata["bad"].ap50, summary.overall.ap50) == (1.0, 0.0, 0.5)
    assert list(summary.strata) == ["bad", "good"]


def test_very_many_objects() -> None:
    truth = np.arange(280 * 280).reshape(280, 280).repeat(2, 0).repeat(2, 1)
    score = match(truth, truth[::-1, ::-1].max() - truth)
    assert score.true == score.matched[-1] == 280 * 280 - 2 or score.true == 280 * 280 - 1


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"\[2, 2\].*\[2, 3\]"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "float64"),
        (np.zeros((2, 2), int), -np.ones((2, 2), int), "negative"),
        (np.zeros(4, int), np.zeros(4, int), r"\[4\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(truth: NDArray[Any], predicted: NDArray[Any], message: str) -> None:
    with pytest.raises(MetricsError, match=message) as caught:
        match(truth, predicted)
    assert caught.value.hint


def test_nothing_to_sum_up() -> None:
    with pytest.raises(MetricsError, match="no frame"):
        summarise([], [])
    with pytest.raises(MetricsError, match="1 scores but 0 strata"):
        summarise([match(np.zeros((1, 1), int), np.zeros((1, 1), int))], [])


def test_real_masks_moved_a_little(shared_data: Path) -> None:
    truth = cv2.imread(str(shared_data / "usiigaci_phase" / "masks" / "B_set35.tif"), cv2.IMREAD_UNCHANGED)
    assert truth is not None
    moved = np.roll(truth, (2, 1), (0, 1))
    ours = match(truth, moved)
    for i, threshold in enumerate(THRESHOLDS):
        assert ours.matched[i] == matching(truth, moved, thresh=threshold).tp
    assert 0 < ours.matched[5] < ours.matched[0]
