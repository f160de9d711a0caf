"""Matching of predicted objects with true ones, frame by frame.

Objects are matched when their intersection over union (IoU) reaches a threshold, as many pairs as possible, each object
once; the definition of ``stardist.matching`` (M. Weigert et al., Star-convex Polyhedra, WACV 2020, arXiv:1908.03636).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.errors import MetricsError

THRESHOLDS: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""IoU thresholds over which mean AP is taken, as in COCO."""


_DENSE_PAIRS, _DENSE_LABELS = 1 << 20, 1 << 22
"""Up to so many pairs and labels a table is quicker than sorting."""


@dataclass(frozen=True)
class FrameScore:
    """What one frame contributes; all numbers add up over frames.

    Attributes:
        true, predicted: numbers of objects.
        matched: number of matched pairs at each of THRESHOLDS.
        matched_iou: sum of the IoU of the pairs matched at 0.5.
        true_px, predicted_px, both_px: pixels of the true foreground, the predicted one, and their intersection.
        pixels: pixels of the frame.
        missed: labels of the true objects without a partner at 0.5.
        false: labels of the predicted objects without a partner at 0.5.
    """

    true: int
    predicted: int
    matched: tuple[int, ...]
    matched_iou: float
    true_px: int
    predicted_px: int
    both_px: int
    pixels: int
    missed: tuple[int, ...] = ()
    false: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of objects that share pixels.

    Attributes:
        true_labels, predicted_labels: labels, ascending.
        true_index, predicted_index: for each pair, positions in these.
        iou: for each pair.
    """

    true_labels: NDArray[np.int64]
    predicted_labels: NDArray[np.int64]
    true_index: NDArray[np.intp]
    predicted_index: NDArray[np.intp]
    iou: NDArray[np.float64]


def match(truth: NDArray[Any], predicted: NDArray[Any]) -> FrameScore:
    """Score one frame.

    Args:
        truth, predicted: label images [H,W] of any integer dtype; 0 is background.

    Returns:
        Counts of true, predicted and matched objects per IoU threshold, Dice, IoU, count and confluence error.

    Raises:
        MetricsError: other dtypes, negative labels, or different shapes.
    """
    t, p = _checked(truth, "the true mask"), _checked(predicted, "the predicted mask")
    if t.shape != p.shape:
        raise MetricsError(
            f"the true mask is {list(t.shape)}, the predicted one {list(p.shape)}",
            hint="compare masks of the same frame",
        )
    o = overlaps(t, p)
    pairs = _pairs_at(o, THRESHOLDS[0])
    counts = tuple(len(_pairs_at(o, threshold)) for threshold in THRESHOLDS)
    rows, columns = set(o.true_index[pairs].tolist()), set(o.predicted_index[pairs].tolist())
    return FrameScore(
        true=len(o.true_labels),
        predicted=len(o.predicted_labels),
        matched=counts,
        matched_iou=float(sum(o.iou[pairs].tolist())),
        true_px=int(np.count_nonzero(t)),
        predicted_px=int(np.count_nonzero(p)),
        both_px=int(np.count_nonzero((t != 0) & (p != 0))),
        pixels=t.size,
        missed=tuple(int(v) for i, v in enumerate(o.true_labels) if i not in rows),
        false=tuple(int(v) for i, v in enumerate(o.predicted_labels) if i not in columns),
    )


def overlaps(truth: NDArray[Any], predicted: NDArray[Any]) -> Overlaps:
    """All pairs of objects that share a pixel, with their IoU; sparse, so many objects need little memory."""
    true_labels, t, true_area = _compact(truth)
    predicted_labels, p, predicted_area = _compact(predicted)
    both = (t > 0) & (p > 0)
    width = len(predicted_labels) + 1
    keys = t[both].astype(np.int64) * width + p[both]
    if (len(true_labels) + 1) * width <= max(_DENSE_PAIRS, truth.size):  # pragma: no mutate (both ways give the same)
        table = np.bincount(keys)
        pairs = np.flatnonzero(table)
        shared = table[pairs]
    else:
        pairs, shared = np.unique(keys, return_counts=True)
    rows, columns = pairs // width - 1, pairs % width - 1
    union = true_area[rows] + predicted_area[columns] - shared
    return Overlaps(true_labels, predicted_labels, rows, columns, shared / union)


def _checked(labels: NDArray[Any], what: str) -> NDArray[Any]:
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise MetricsError(
            f"{what} is {labels.dtype} {list(labels.shape)}", hint="masks are integer label images [H,W]"
        )
    if labels.dtype.kind == "i" and labels.size and int(labels.min()) < 0:
        raise MetricsError(f"{what} has negative labels", hint="number the objects from 1; 0 is background")
    return labels


def _compact(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Labels, the image with positions 1..n instead of labels, and areas."""
    top = int(labels.max(initial=0))
    if top < max(_DENSE_LABELS, labels.size):  # pragma: no mutate (both ways give the same)
        area = np.bincount(labels.ravel(), minlength=top + 1)
        area[0] = 0
        values = np.flatnonzero(area)
        table = np.zeros(top + 1, np.int32)
        table[values] = np.arange(1, len(values) + 1)
        return values.astype(np.int64), table[labels], area[values].astype(np.int64)
    found, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    background = int(found[0] == 0)
    compact = inverse.reshape(labels.shape).astype(np.int32) + (1 - background)
    return found[background:].astype(np.int64), compact, counts[background:].astype(np.int64)


def _pairs_at(o: Overlaps, threshold: float) -> NDArray[np.intp]:
    """A largest set of pairs with at least that IoU in which every object occurs once; positions in ``o``.

    No search is needed, because the threshold is at least one half. An object with two such partners consists of exactly
    them: each covers half of it and nothing else, so neither has another partner. The first of the two is taken.
    """
    pairs = np.flatnonzero(o.iou >= threshold)
    for index in (o.true_index, o.predicted_index):
        pairs = pairs[np.unique(index[pairs], return_index=True)[1]]
    return np.sort(pairs)
