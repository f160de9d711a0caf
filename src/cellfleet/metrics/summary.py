"""From frames to the numbers of a data set, overall and per stratum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cellfleet.errors import MetricsError
from cellfleet.metrics.matching import THRESHOLDS, FrameScore


@dataclass(frozen=True)
class Numbers:
    """The quality of a segmentation.

    Attributes:
        frames, true, predicted: how many frames, true and predicted objects.
        ap50: AP at IoU 0.5. AP is TP / (TP + FP + FN) with the counts of all frames together
            (``stardist.matching_dataset(by_image=False)``, there called accuracy); 1 when there is nothing to find and
            nothing was found.
        map: mean AP over IoU 0.5, 0.55 ... 0.95.
        ap: AP by threshold, as text (``"0.50"``).
        precision, recall, f1: at IoU 0.5.
        mean_iou: mean IoU of the pairs matched at 0.5; 0 when there is none.
        dice, iou: of the foreground, pixels of all frames together; 1 when both are empty.
        count_error: mean over frames of |predicted - true| / max(true, 1).
        confluence_error: mean over frames of the absolute difference of confluence, in percentage points.
    """

    frames: int
    true: int
    predicted: int
    ap50: float
    map: float
    ap: Mapping[str, float]
    precision: float
    recall: float
    f1: float
    mean_iou: float
    dice: float
    iou: float
    count_error: float
    confluence_error: float


@dataclass(frozen=True)
class Summary:
    """Numbers of all frames together and of each stratum."""

    overall: Numbers
    strata: Mapping[str, Numbers]


def summarise(scores: Iterable[FrameScore], strata: Iterable[str]) -> Summary:
    """Sum up frames.

    Args:
        scores: one per frame.
        strata: the stratum of each frame.

    Returns:
        AP per threshold, mean AP, Dice and errors over all frames and per stratum.

    Raises:
        MetricsError: no frame, or unequal numbers of scores and strata.
    """
    listed, names = list(scores), list(strata)
    if len(listed) != len(names):
        raise MetricsError(f"{len(listed)} scores but {len(names)} strata", hint="give one stratum per frame")
    if not listed:
        raise MetricsError("no frame to sum up", hint="evaluate at least one frame")
    by_name = {n: [s for s, m in zip(listed, names, strict=True) if m == n] for n in sorted(set(names))}
    return Summary(numbers_of(listed), {n: numbers_of(group) for n, group in by_name.items()})


def numbers_of(scores: list[FrameScore]) -> Numbers:
    """The numbers of some frames together (at least one)."""
    true, predicted = sum(s.true for s in scores), sum(s.predicted for s in scores)
    matched = [sum(s.matched[i] for s in scores) for i in range(len(THRESHOLDS))]
    ap = [_ratio(m, true + predicted - m, 1.0) for m in matched]
    true_px, predicted_px = sum(s.true_px for s in scores), sum(s.predicted_px for s in scores)
    both = sum(s.both_px for s in scores)
    empty = 1.0 if true == predicted == 0 else 0.0
    return Numbers(
        frames=len(scores),
        true=true,
        predicted=predicted,
        ap50=ap[0],
        map=sum(ap) / len(ap),
        ap={f"{t:.2f}": v for t, v in zip(THRESHOLDS, ap, strict=True)},
        precision=_ratio(matched[0], predicted, empty),
        recall=_ratio(matched[0], true, empty),
        f1=_ratio(2 * matched[0], true + predicted, 1.0),
        mean_iou=_ratio(sum(s.matched_iou for s in scores), matched[0], 0.0),
        dice=_ratio(2 * both, true_px + predicted_px, 1.0),
        iou=_ratio(both, true_px + predicted_px - both, 1.0),
        count_error=sum(abs(s.predicted - s.true) / max(s.true, 1) for s in scores) / len(scores),
        confluence_error=sum(100 * abs(s.predicted_px - s.true_px) / s.pixels for s in scores) / len(scores),
    )


def _ratio(part: float, whole: float, otherwise: float) -> float:
    return part / whole if whole else otherwise
