"""Which segmenter is needed, what it does next, and which experiments a bad slot has segmented. Pure.

An experiment belongs to the slot of its pin; to the active slot while it has no pin, or a pin to no slot.
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
"""A frame that was taken less than so long ago is live: it is shown at once, and probation waits for it."""
TABLES_EVERY = 50
"""So many outcomes more, and the tables of an experiment that goes on are written again."""
_CLOCK_STEP = timedelta(seconds=1)
"""An activation is noted a moment after the slot was switched to."""

HasEnded = Callable[[Experiment], bool]


@dataclass
class Task:
    """One frame to be segmented.

    Attributes:
        live: it was taken a short while ago, and was not segmented before.
        pin: number of the pin under which it is segmented.
    """

    experiment: Experiment
    frame: FrameFile
    live: bool
    pin: int = 0


def slot_of(experiment: Experiment, active: str) -> str:
    """SHA-256 of the slot that segments an experiment; empty: none, its frames wait.

    Args:
        experiment: pinned or not.
        active: SHA-256 of the active slot; empty: there is none.
    """
    pin = experiment.pin
    return pin.bundle_sha256 if pin is not None and pin.bundle_sha256 else active


def needed_slots(experiments: Iterable[Experiment], active: str, has_ended: HasEnded) -> set[str]:
    """The slots that need a segmenter now: the active one, and those of experiments with work left or to come.

    Args:
        experiments: those that are not closed.
        active: SHA-256 of the active slot; empty: there is none.
        has_ended: no frame of the experiment is to come.
    """
    busy = {slot_of(e, active) for e in experiments if not is_done(e, has_ended)}
    return {sha256 for sha256 in busy | {active} if sha256}


def is_done(experiment: Experiment, has_ended: HasEnded) -> bool:
    """Its frames have outcomes, no frame is to come, and its tables are complete, or there is nothing to put into them.

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
    """The next experiment whose tables are due: it is over, or has many outcomes more than they hold.

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
    """An experiment is pinned to that run.

    Args:
        experiment: pinned or not.
        run_digest: of a segmenter.
    """
    return experiment.pin is not None and experiment.pin.run_digest == run_digest


def has_segmented(
    experiment: Experiment, sha256: str, since: datetime, outcomes: Callable[[Experiment], Iterable[Outcome]]
) -> bool:
    """Whether a slot segments an experiment, or has segmented frames of it since then.

    Args:
        experiment: any one.
        sha256: of the slot.
        since: with its zone.
        outcomes: reads those on the disk; called for closed experiments only, whose outcomes are not in memory.
    """
    pin = experiment.pin
    if pin is None or pin.bundle_sha256 != sha256:
        return False
    since -= _CLOCK_STEP
    if experiment.closed is None or pin.at >= since:
        return True
    masks = (o for o in outcomes(experiment) if isinstance(o, FrameSegmented) and o.pin == pin.number)
    return any(o.segmented_at >= since for o in masks)
