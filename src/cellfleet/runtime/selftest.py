"""Self-test: a bundle's golden frames on this very machine, compared with the truth and with what its builder saw."""

from __future__ import annotations

from dataclasses import dataclass

from cellfleet.bundle import Bundle, GoldenFrame
from cellfleet.bundle.spec import Variant
from cellfleet.config.model import SegmentSection
from cellfleet.data import Frame
from cellfleet.errors import EngineError
from cellfleet.metrics import match, numbers_of
from cellfleet.runtime.loader import load_segmenter


@dataclass(frozen=True)
class SelfTest:
    """How one variant did on the golden frames here.

    Attributes:
        variant: ``engine/precision``.
        ap50, least_ap50: AP@0.5 against the truth, and the least that the bundle asks for.
        agreement, least_agreement: AP@0.5 against the labels that the builder's machine drew; the least of all frames,
            and the least that the bundle asks for.
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
        """It ran, and reached what the bundle asks for."""
        return not self.problem and self.ap50 >= self.least_ap50 and self.agreement >= self.least_agreement


def golden_frame_as_frame(golden: GoldenFrame) -> Frame:
    """A golden frame as the runtime takes it."""
    return Frame(golden.pixels, golden.channels, golden.pixel_size_um, {}, f"golden frame {golden.name}")


def self_test(bundle: Bundle, variant: Variant, settings: SegmentSection | None = None) -> SelfTest:
    """Run one variant on the golden frames.

    Raises:
        SegmentError: the network's outputs are not those that the bundle promises.
    """
    least_ap50 = variant.least_golden_ap50 if variant.least_golden_ap50 is not None else 0.0
    tolerance = bundle.manifest.tolerances.get(variant.engine)
    least_agreement = tolerance.least_agreement if tolerance else 0.0
    try:
        segmenter = load_segmenter(bundle, variant.name, settings)
    except EngineError as e:
        return SelfTest(variant.name, 0.0, least_ap50, 0.0, least_agreement, 0.0, e.message)
    scores, agreements, slowest = [], [1.0], 0.0
    for golden in bundle.golden():
        found = segmenter.segment(golden_frame_as_frame(golden))
        scores.append(match(golden.truth, found.labels))
        slowest = max(slowest, found.timings_ms["total"])
        if variant.name in golden.expected:
            agreements.append(numbers_of([match(golden.expected[variant.name], found.labels)]).ap50)
    ap50 = numbers_of(scores).ap50
    return SelfTest(variant.name, ap50, least_ap50, min(agreements), least_agreement, slowest)
