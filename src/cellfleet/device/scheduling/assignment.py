"""Decides which segmenters are needed, what each does next, and which experiments a bad slot has segmented. Pure.

An experiment belongs to the slot of its pin, or to the active slot while it has no pin or a pin without a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cellfleet.device.camera.frame_store import FrameFile
from cellfleet.device.scheduling.experiments import Experiment, age_s
from cellfleet.device.scheduling.pins import Outcome
from cellfleet.wire.telemetry_events import FrameSegmented

LIVE_S = 60.0
"""Maximum age of a live frame, which is shown at once and counts for probation."""
TABLES_EVERY = 50
"""Number of new outcomes after which the tables of a running experiment are written again."""
_CLOCK_STEP = timedelta(seconds=1)
"""Tolerance: an activation is recorded shortly after the switch to the slot."""

HasEnded = Callable[[Experiment], bool]


@dataclass
class Task:
    """One frame to be segmented.

    Attributes:
        live: it was taken recently, and was not segmented before.
        pin: number of the pin under which it is segmented.
    """

    experiment: Experiment
    frame: FrameFile
    live: bool
    pin: int = 0


def slot_of(experiment: Experiment, active: str) -> str:
    """SHA-256 of the slot that segments an experiment; empty: no slot, its frames wait.

    Args:
        experiment: pinned or not.
        active: SHA-256 of the active slot; empty: there is none.
    """
    pin = experiment.pin
    return pin.bundle_sha256 if pin is not None and pin.bundle_sha256 else active


def needed_slots(experiments: Iterable[Experiment], active: str, has_ended: HasEnded) -> set[str]:
    """The slots that need a segmenter now: the active one, and those of experiments that are not done.

    Args:
        experiments: those that are not closed.
        active: SHA-256 of the active slot; empty: there is none.
        has_ended: no frame of the experiment is to come.
    """
    busy = {slot_of(e, active) for e in experiments if not is_done(e, has_ended)}
    return {sha256 for sha256 in busy | {active} if sha256}


def is_done(experiment: Experiment, has_ended: HasEnded) -> bool:
    """Whether all frames of an experiment have outcomes, no frame will follow, and its tables are complete or not needed.

    Args:
        experiment: one that is not closed.
        has_ended: no frame of the experiment is to come.
    """
    has_tables = experiment.tables_at < 0 or not experiment.outcomes
    return has_ended(experiment) and not experiment.pending and has_tables


def next_task(experiments: Sequence[Experiment], now: datetime) -> Task | None:
    """The next frame: live frames first, in their order, then the oldest of the others.

    Args:
        experiments: of one slot, the oldest first.
        now: with its zone.

    Returns:
        None: every frame has an outcome.
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


def next_tables(experiments: Iterable[Experiment], run_digest: str, has_ended: HasEnded) -> Experiment | None:
    """The next experiment whose tables are due: it is over, or has enough new outcomes.

    Args:
        experiments: of one slot.
        run_digest: of the slot's segmenter, which can only write the tables of its own run.
        has_ended: no frame of the experiment is to come.

    Returns:
        None: no tables are due.
    """
    for experiment in experiments:
        if not has_run(experiment, run_digest):
            continue
        count = len(experiment.outcomes)
        is_over = has_ended(experiment) and not experiment.pending
        grown = count - max(0, experiment.tables_at) >= TABLES_EVERY
        if count and ((is_over and experiment.tables_at >= 0) or grown):
            return experiment
    return None


def has_run(experiment: Experiment, run_digest: str) -> bool:
    """Whether an experiment is pinned to a run.

    Args:
        experiment: pinned or not.
        run_digest: of a segmenter.
    """
    return experiment.pin is not None and experiment.pin.run_digest == run_digest


def has_segmented(
    experiment: Experiment, sha256: str, since: datetime, outcomes: Callable[[Experiment], Iterable[Outcome]]
) -> bool:
    """Whether a slot segments an experiment, or has segmented frames of it since a time.

    Args:
        experiment: open or closed.
        sha256: of the slot.
        since: with its zone.
        outcomes: reads outcomes from the disk; called for closed experiments only, whose outcomes are not in memory.
    """
    pin = experiment.pin
    if pin is None or pin.bundle_sha256 != sha256:
        return False
    since -= _CLOCK_STEP
    if experiment.closed is None or pin.at >= since:
        return True
    masks = (o for o in outcomes(experiment) if isinstance(o, FrameSegmented) and o.pin == pin.number)
    return any(o.segmented_at >= since for o in masks)
