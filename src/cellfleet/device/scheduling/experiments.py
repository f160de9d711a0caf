"""An experiment in the scheduler's memory: frames, pins and outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from cellfleet.device.camera.frame_store import ExperimentFile, FrameFile
from cellfleet.device.scheduling.pins import Pin

State = Literal["segmented", "failed"]


@dataclass
class FrameTally:
    """Frames of an experiment under its last pin."""

    taken: int = 0
    stored: int = 0
    segmented: int = 0
    failed: int = 0


@dataclass
class Experiment:
    """One experiment.

    Attributes:
        facts: of its folder.
        results: folder of its results.
        frames: by name, in order; empty when it is closed.
        missing: frames whose raw file is missing.
        pins: in order; the last one is valid.
        outcomes: frame -> its outcome under the last pin.
        before: frames that were segmented under an earlier pin.
        closed: counts of an experiment that is done; None: it is not closed.
        tables_at: number of outcomes in its tables when they were last written; -1: they are complete.
        reported: all outcomes that were on the disk when the experiment was found were sent to the sink.
    """

    facts: ExperimentFile
    results: Path
    frames: dict[str, FrameFile] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    pins: list[Pin] = field(default_factory=list)
    outcomes: dict[str, State] = field(default_factory=dict)
    before: set[str] = field(default_factory=set)
    closed: FrameTally | None = None
    changed_ns: int = 0
    tables_at: int = 0
    reported: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.facts.experiment

    @property
    def pin(self) -> Pin | None:
        """The valid pin."""
        return self.pins[-1] if self.pins else None

    @property
    def pending(self) -> list[FrameFile]:
        """Frames without an outcome under the last pin, in order."""
        return [f for name, f in self.frames.items() if name not in self.outcomes]

    def tally(self) -> FrameTally:
        """Counts of its frames."""
        if self.closed is not None:
            return self.closed
        states = list(self.outcomes.values())
        return FrameTally(
            len(self.frames), len(self.frames) - len(self.missing), states.count("segmented"), states.count("failed")
        )


def age_s(frame: FrameFile, now: datetime) -> float:
    """Seconds since a frame was taken.

    Args:
        frame: of the camera.
        now: with its zone.
    """
    return (now - frame.taken.taken_at).total_seconds()
