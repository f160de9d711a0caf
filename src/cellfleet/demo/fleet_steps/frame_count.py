"""Count frames at the end: on the instruments' disks and on the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellfleet.canonical import sha256_file
from cellfleet.device.camera.frame_store import EXPERIMENT, FrameFile


@dataclass(frozen=True)
class FrameCount:
    """Frames of one instrument, or of all instruments.

    Attributes:
        taken: frames that the camera took.
        stored: frames whose raw file is on the disk with its recorded digest.
        segmented: frames with a mask on the server.
        lost: frames not stored, not segmented, or missing in the numbering of an experiment.
        doubled: duplicate numbers in an experiment, and additional valid masks of a frame.
    """

    taken: int = 0
    stored: int = 0
    segmented: int = 0
    lost: int = 0
    doubled: int = 0

    def __add__(self, other: FrameCount) -> FrameCount:
        return FrameCount(
            self.taken + other.taken,
            self.stored + other.stored,
            self.segmented + other.segmented,
            self.lost + other.lost,
            self.doubled + other.doubled,
        )


def count_frames(frames: Path, rows: Iterable[Mapping[str, Any]]) -> FrameCount:
    """Count the frames of one instrument.

    Args:
        frames: its folder of raw frames.
        rows: its current results on the server.
    """
    masks = Counter((r["experiment"], r["frame"]) for r in rows)
    files = [FrameFile.model_validate_json(f.read_bytes()) for f in frames.glob("*/*.json") if f.name != EXPERIMENT]
    taken = {(f.taken.experiment, f.taken.frame): f for f in files}
    stored = {key for key, f in taken.items() if _is_stored(frames, f)}
    numbers = Counter((f.taken.experiment, f.taken.index) for f in files)
    highest: Counter[str] = Counter()
    for experiment, index in numbers:
        highest[experiment] = max(highest[experiment], index + 1)
    left_out = sum(highest.values()) - len(numbers)
    segmented = {key for key in taken if masks[key]}
    return FrameCount(
        taken=len(taken),
        stored=len(stored),
        segmented=len(segmented),
        lost=len(taken) - len(stored & segmented) + left_out,
        doubled=sum(n - 1 for n in numbers.values()) + sum(n - 1 for n in masks.values()),
    )


def _is_stored(frames: Path, f: FrameFile) -> bool:
    raw = frames / f.taken.experiment / f.file
    return raw.is_file() and sha256_file(raw) == f.taken.sha256
