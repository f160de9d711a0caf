"""Self-test: a bundle's golden frames on this very machine, compared with the truth and with what its builder saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle import Bundle, GoldenFrame
from cellfleet.bundle.spec import Variant
from cellfleet.config.model import SegmentSection
from cellfleet.data import Frame
from cellfleet.errors import EngineError, ReadError, SegmentError
from cellfleet.metrics import match, numbers_of
from cellfleet.runtime.loader import load_segmenter
from cellfleet.runtime.segmenter import Segmenter


@dataclass(frozen=True)
class SelfTest:
    """How one variant did on the golden frames here.

    Attributes:
        variant: ``engine/precision``.
        ap50, least_ap50: AP@0.5 against the truth, and the bundle's minimum.
        agreement, least_agreement: AP@0.5 against the labels of the machine that built the bundle; the least of all frames,
            and the bundle's minimum.
        milliseconds: of the slowest golden frame.
        problem: why it could not be run; empty when it ran.
    """

    variant: str
    ap50: float
    least_ap50: float
    agreement: float
    least_agreement: float
    milliseconds: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """It ran, and reached the bundle's minimums."""
        return not self.problem and self.ap50 >= self.least_ap50 and self.agreement >= self.least_agreement


@dataclass(frozen=True, eq=False)
class GoldenFrameScore:
    """One golden frame as a segmenter segments it.

    Attributes:
        name: of the frame.
        labels: uint32 [H,W].
        ap50: AP@0.5 against the truth.
        count: number of objects.
        milliseconds: from pixels to measurements.
    """

    name: str
    labels: NDArray[np.uint32]
    ap50: float
    count: int
    milliseconds: float


@dataclass(frozen=True, eq=False)
class GoldenScores:
    """All golden frames together.

    Attributes:
        frames: each of them, at least one.
        ap50: AP@0.5 against the truth, objects of all frames counted together.
        agreement: the least AP@0.5 of a frame against its expected labels; 1 when nothing is expected.
    """

    frames: tuple[GoldenFrameScore, ...]
    ap50: float
    agreement: float

    @property
    def milliseconds(self) -> float:
        """Of the slowest frame."""
        return max(f.milliseconds for f in self.frames)


def score_golden(segmenter: Segmenter, golden: Sequence[GoldenFrame], expected_of: str = "") -> GoldenScores:
    """Segment golden frames and score the result; builders, self-tests and instruments use this rule.

    Args:
        segmenter: the model to try.
        golden: of any bundle.
        expected_of: the variant whose expected labels count; empty: none do.

    Raises:
        SegmentError: there is no golden frame, or the model cannot segment one.
        EngineError: the engine failed.
    """
    if not golden:
        raise SegmentError(
            "the bundle has no golden frames", hint="build the bundle again with bundle.golden_frames >= 1"
        )
    frames, scores, agreements = [], [], [1.0]
    for one in golden:
        frame = Frame(one.pixels, one.channels, one.pixel_size_um, {}, f"golden frame {one.name}")
        found = segmenter.segment(frame)
        score = match(one.truth, found.labels)
        ms = found.timings_ms["total"]
        frames.append(GoldenFrameScore(one.name, found.labels, numbers_of([score]).ap50, found.count, ms))
        scores.append(score)
        if expected_of in one.expected:
            agreements.append(numbers_of([match(one.expected[expected_of], found.labels)]).ap50)
    return GoldenScores(tuple(frames), numbers_of(scores).ap50, min(agreements))


def least_scores(bundle: Bundle, variant: Variant) -> tuple[float, float]:
    """What a bundle asks of one of its variants: the least AP@0.5 on its golden frames, and the least agreement."""
    tolerance = bundle.manifest.tolerances.get(variant.engine)
    return variant.least_golden_ap50 or 0.0, tolerance.least_agreement if tolerance else 0.0


def self_test(bundle: Bundle, variant: Variant, settings: SegmentSection | None = None) -> SelfTest:
    """Run one variant on the golden frames; what keeps it from running is its ``problem``.

    Args:
        bundle: with its golden frames.
        variant: one of the bundle's.
        settings: threads and tiles; None: the defaults.
    """
    least_ap50, least_agreement = least_scores(bundle, variant)
    try:
        found = score_golden(load_segmenter(bundle, variant.name, settings), bundle.golden(), variant.name)
    except (EngineError, SegmentError, ReadError) as e:
        return SelfTest(variant.name, 0.0, least_ap50, 0.0, least_agreement, 0.0, e.message)
    return SelfTest(variant.name, found.ap50, least_ap50, found.agreement, least_agreement, found.milliseconds)
