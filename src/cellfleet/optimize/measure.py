"""Measuring variants on the validation split, all of them frame by frame, by the runtime's own path."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cellfleet.bundle.spec import ModelSpec
from cellfleet.errors import SegmentError
from cellfleet.metrics import FrameScore, Numbers, match, numbers_of
from cellfleet.ports import ProgressFn
from cellfleet.runtime.engines import Engine
from cellfleet.runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from cellfleet.data import DataSetVersion, Entry


@dataclass
class Measured:
    """What was seen of one variant.

    Attributes:
        scores: of each frame against the truth.
        against_reference: of each frame against the labels of the reference.
        milliseconds: of each frame, from pixels to measured objects.
        failure: why it was given up; empty when all frames were segmented.
    """

    scores: list[FrameScore] = field(default_factory=list)
    against_reference: list[FrameScore] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def numbers(self) -> Numbers:
        """Quality against the truth."""
        return numbers_of(self.scores)

    @property
    def agreement(self) -> float:
        """AP@0.5 of the labels against those of the reference."""
        return numbers_of(self.against_reference).ap50

    @property
    def ms_per_frame(self) -> float:
        """Median time of a frame."""
        return statistics.median(self.milliseconds)


def measure(
    spec: ModelSpec,
    engines: Mapping[str, Engine],
    data: DataSetVersion,
    entries: Sequence[Entry],
    progress: ProgressFn,
) -> dict[str, Measured]:
    """Segment frames with several engines.

    Args:
        spec: the model.
        engines: variant name -> engine with its network; the first is the reference.
        data: the data set version.
        entries: the frames to segment.
        progress: called after each frame.

    Raises:
        SegmentError: the reference cannot segment a frame; a failure of another engine is noted and it is left out.
    """
    out = {name: Measured() for name in engines}
    reference = next(iter(engines))
    segmenters = {name: Segmenter(spec, engine) for name, engine in engines.items()}
    for done, entry in enumerate(entries, 1):
        frame, truth = data.load_frame(entry), data.load_mask(entry)
        wanted = None
        for name, segmenter in segmenters.items():
            seen = out[name]
            if seen.failure:
                continue
            try:
                found = segmenter.segment(frame)
            except SegmentError as e:
                if name == reference:
                    raise
                seen.failure = f"cannot segment {entry.id}: {e.message}"
                continue
            wanted = found.labels if wanted is None else wanted
            seen.scores.append(match(truth, found.labels))
            seen.against_reference.append(match(wanted, found.labels))
            seen.milliseconds.append(found.timings_ms["total"])
        progress(done, len(entries), f"measured {entry.id}")
    return out
