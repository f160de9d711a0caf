"""A segmentation against the truth of a data set version, frame by frame."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cellfleet.data import DataSetVersion, Frame
from cellfleet.data.records import Entry, SplitName
from cellfleet.errors import EvaluateError
from cellfleet.metrics import FrameScore, Summary, match, summarise
from cellfleet.metrics.summary import Numbers, numbers_of
from cellfleet.ports import Clock, ProgressFn, SystemClock, silent
from cellfleet.runtime.segmenter import Segmentation

Labels = NDArray[np.uint32]
Segment = Callable[[Frame], Segmentation | Labels]


@dataclass(frozen=True)
class FrameResult:
    """One frame.

    Attributes:
        id, stratum: of the data set entry.
        height, width: in pixels.
        score: what it adds to the sums.
        numbers: the numbers of this frame alone.
        timings_ms: stage -> milliseconds; ``total`` is always there.
        flags: what the runtime said of the frame, each with its reason.
    """

    id: str
    stratum: str
    height: int
    width: int
    score: FrameScore
    numbers: Numbers
    timings_ms: Mapping[str, float]
    flags: tuple[str, ...] = ()

    @property
    def badness(self) -> tuple[float, float, str]:
        """Sort key: the worst frame first (least AP@0.5, then least mean AP, then by id)."""
        return (self.numbers.ap50, self.numbers.map, self.id)

    @property
    def confluence(self) -> tuple[float, float]:
        """True and predicted confluence in percent."""
        return 100 * self.score.true_px / self.score.pixels, 100 * self.score.predicted_px / self.score.pixels


@dataclass(frozen=True)
class Evaluation:
    """The quality of a segmentation on one split of one data set version.

    Attributes:
        data_set: digest of the version.
        split: ``train``, ``validation`` or ``test``.
        frames: one result per frame, by id.
        summary: numbers overall and per stratum.
        stages_ms: stage -> median milliseconds per frame.
    """

    data_set: str
    split: str
    frames: tuple[FrameResult, ...]
    summary: Summary
    stages_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def worst_first(self) -> list[FrameResult]:
        """The frames, the worst first."""
        return sorted(self.frames, key=lambda f: f.badness)


@dataclass(frozen=True, eq=False)
class Scene:
    """All there is to see of one frame, for pictures.

    Attributes:
        frame: uint8 or uint16 [C,H,W].
        truth, labels: uint32 [H,W].
        result: the numbers.
    """

    frame: Frame
    truth: Labels
    labels: Labels
    result: FrameResult


def evaluate(
    segment: Segment,
    data: DataSetVersion,
    split: SplitName = "test",
    progress: ProgressFn = silent,
    *,
    on_frame: Callable[[Scene], None] | None = None,
    clock: Clock | None = None,
) -> Evaluation:
    """Segment every frame of a split and compare with its mask; one frame is in memory at a time.

    Args:
        segment: frame -> Segmentation, or labels [H,W] of the frame's size.
        data: the data set version.
        split: which part of it.
        progress: called once per frame.
        on_frame: called with every frame when it was measured.
        clock: times ``segment`` where it gives no timings of its own.

    Returns:
        Numbers per frame, per stratum and over all frames.

    Raises:
        EvaluateError: the split is empty.
        DataError: an image or a mask is absent or changed since it was frozen.
        SegmentError: the model refuses a frame.
    """
    entries = data.split(split)
    if not entries:
        raise EvaluateError(
            f"the split {split!r} of the data set version {data.digest[:12]} has no image",
            hint="choose another split, or freeze a data set with more groups",
        )
    clock = clock or SystemClock()
    results = []
    for number, entry in enumerate(entries, 1):
        scene = _one(segment, data, entry, clock)
        if on_frame is not None:
            on_frame(scene)
        results.append(scene.result)
        progress(number, len(entries), f"{entry.id}: AP@0.5 {scene.result.numbers.ap50:.3f}")
    summary = summarise([r.score for r in results], [r.stratum for r in results])
    return Evaluation(data.digest, split, tuple(results), summary, _medians(r.timings_ms for r in results))


def _one(segment: Segment, data: DataSetVersion, entry: Entry, clock: Clock) -> Scene:
    frame, truth = data.load_frame(entry), data.load_mask(entry)
    start = clock.monotonic_s()
    got = segment(frame)
    elapsed_ms = 1e3 * (clock.monotonic_s() - start)
    if isinstance(got, Segmentation):
        labels, timings = got.labels, {"total": elapsed_ms} | dict(got.timings_ms)
        flags = tuple(f"{flag.name}: {flag.reason}" for flag in got.flags)
    else:
        labels, timings, flags = got, {"total": elapsed_ms}, ()
    score = match(truth, labels)
    height, width = truth.shape
    result = FrameResult(entry.id, entry.stratum, height, width, score, numbers_of([score]), timings, flags)
    return Scene(frame, truth, labels, result)


def _medians(timings: Iterable[Mapping[str, float]]) -> dict[str, float]:
    columns: dict[str, list[float]] = {}
    for one in timings:
        for stage, ms in one.items():
            columns.setdefault(stage, []).append(ms)
    return {stage: statistics.median(values) for stage, values in columns.items()}
