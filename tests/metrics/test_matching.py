"""Matching: equal to stardist's, at one half too, and refusing what cannot be compared."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellfleet.errors import MetricsError
from cellfleet.metrics import THRESHOLDS, match
from support_labels import Labels, compact, label_pairs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stardist.matching import matching


@given(label_pairs())
@settings(max_examples=200, deadline=None)
def test_equal_to_stardist_at_every_threshold(pair: tuple[Labels, Labels]) -> None:
    truth, predicted = (compact(a) for a in pair)
    ours = match(truth, predicted)
    for i, threshold in enumerate(THRESHOLDS):
        theirs: Any = matching(truth, predicted, thresh=threshold)
        assert (ours.matched[i], ours.true, ours.predicted) == (theirs.tp, theirs.n_true, theirs.n_pred)
    assert len(ours.missed) == ours.true - ours.matched[0]
    assert len(ours.false) == ours.predicted - ours.matched[0]


PARTS: dict[str, tuple[list[int], list[int]]] = {
    "same": ([1, 1], [1, 1]),
    "split": ([1, 1], [1, 2]),
    "merged": ([1, 2], [1, 1]),
    "split but for a third": ([1, 1, 1], [1, 1, 2]),
    "missed": ([1, 1], [0, 0]),
    "false": ([0, 0], [1, 1]),
    "less than half": ([1, 1, 1, 0], [0, 0, 1, 1]),
}
"""True and predicted labels of a few pixels; at an IoU of exactly one half an object of the second and third has two partners."""


@given(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=12), st.booleans())
@settings(deadline=None)
def test_halves_are_matched_once(kinds: list[str], reverse: bool) -> None:
    rows: tuple[list[int], list[int]] = ([], [])
    for kind in kinds:
        for row, part in zip(rows, PARTS[kind], strict=True):
            top = max(row, default=0)
            row += [v and v + top for v in part]
    truth, predicted = (np.array([row[::-1] if reverse else row]) for row in rows)
    score = match(truth, predicted)
    matched = [k for k in kinds if k in ("same", "split", "merged", "split but for a third")]
    assert score.matched[0] == len(matched) == matching(truth, predicted, thresh=0.5).tp
    iou = {"same": 1.0, "split": 0.5, "merged": 0.5, "split but for a third": 2 / 3}
    assert score.matched_iou == pytest.approx(sum(iou[k] for k in matched))
    assert score.matched[1] == sum(iou[k] >= 0.55 for k in matched)


def test_of_two_halves_the_first_is_the_partner() -> None:
    split = match(np.array([[4, 4, 0, 9, 9]]), np.array([[7, 8, 0, 0, 0]]))
    assert (split.missed, split.false) == ((9,), (8,))
    merged = match(np.array([[7, 8, 0]]), np.array([[4, 4, 5]]))
    assert (merged.missed, merged.false) == ((8,), (5,))


def test_pixels_are_counted() -> None:
    score = match(np.array([[1, 1, 0, 0, 0], [0, 2, 0, 0, 0]]), np.array([[1, 0, 0, 3, 0], [0, 3, 3, 0, 0]]))
    assert (score.true_px, score.predicted_px, score.both_px, score.pixels) == (3, 4, 2, 10)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64])
def test_every_integer_type_is_taken(dtype: type[np.unsignedinteger[Any]]) -> None:
    labels = np.array([[1, 1, 0, 2]], dtype)
    assert match(labels, labels).matched == (2,) * len(THRESHOLDS)


def test_a_frame_without_background_and_with_huge_labels() -> None:
    truth = np.array([[2**40, 2**41]])
    score = match(truth, np.array([[2**50, 0]]))
    assert (score.true, score.predicted, score.matched[0], score.missed) == (2, 1, 1, (2**41,))


@given(label_pairs(), st.integers(1, 2**31))
@settings(deadline=None)
def test_the_numbers_of_the_labels_do_not_matter(pair: tuple[Labels, Labels], offset: int) -> None:
    truth, predicted = pair
    moved = np.where(predicted > 0, predicted.astype(np.int64) + offset, 0)
    ours, same = match(truth, predicted), match(truth, moved)
    assert (same.matched, same.predicted, same.matched_iou) == (ours.matched, ours.predicted, ours.matched_iou)


def test_very_many_objects() -> None:
    """So many that their pairs are counted without a table; the first cell is background here, the last one there."""
    cells = np.arange(280 * 280).reshape(280, 280).repeat(2, 0).repeat(2, 1)
    score = match(cells, cells.max() - cells)
    assert (score.true, score.predicted) == (280 * 280 - 1,) * 2
    assert score.matched == (280 * 280 - 2,) * len(THRESHOLDS)


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


def test_real_masks_moved_a_little(shared_data: Path) -> None:
    truth = cv2.imread(str(shared_data / "usiigaci_phase" / "masks" / "B_set35.tif"), cv2.IMREAD_UNCHANGED)
    assert truth is not None
    moved = np.roll(truth, (2, 1), (0, 1))
    ours = match(truth, moved)
    for i, threshold in enumerate(THRESHOLDS):
        assert ours.matched[i] == matching(truth, moved, thresh=threshold).tp
    assert 0 < ours.matched[5] < ours.matched[0]


def test_a_mask_without_pixels() -> None:
    score = match(np.zeros((0, 4), np.int32), np.zeros((0, 4), np.uint8))
    assert (score.true, score.predicted, score.pixels, score.matched) == (0, 0, 0, (0,) * len(THRESHOLDS))
