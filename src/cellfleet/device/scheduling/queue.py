"""Which frame is drawn next: those that were taken a short while ago first, then the oldest. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cellfleet.device.camera.frame_store import FrameFile
from cellfleet.device.scheduling.experiments import Experiment, age_s

LIVE_S = 60.0
"""A frame that was taken less than so long ago is live: people are looking, and a policy may wait for it."""


@dataclass
class Task:
    """One frame to be drawn.

    Attributes:
        live: it was taken a short while ago, and was not drawn before.
        pin: number of the pin under which it is drawn.
    """

    experiment: Experiment
    frame: FrameFile
    live: bool
    pin: int = 0


def next_task(experiments: Sequence[Experiment], now: datetime) -> Task | None:
    """The next frame of these experiments (oldest experiment first); None when there is none.

    Live frames go before back-filled ones, in their order; so does the rest.
    """
    first: Task | None = None
    for experiment in experiments:
        for frame in experiment.pending:
            live = age_s(frame, now) < LIVE_S and frame.taken.frame not in experiment.before
            if live:
                return Task(experiment, frame, True)
            if first is None:
                first = Task(experiment, frame, False)
    return first
