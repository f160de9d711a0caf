"""Pins experiments to slots and runs, so that one run segments all frames of an experiment."""

from __future__ import annotations

from cellfleet.device.interfaces import Slot
from cellfleet.device.scheduling.experiment_store import ExperimentStore
from cellfleet.device.scheduling.experiments import Experiment
from cellfleet.device.scheduling.outcome_recorder import OutcomeRecorder
from cellfleet.device.scheduling.pins import Pin
from cellfleet.device.scheduling.worker import SegmenterWorker
from cellfleet.ports import Clock
from cellfleet.wire.reason import Reason, because


class Pinning:
    """Writes pins and reports them.

    Args:
        store: of the experiments.
        recorder: reports an experiment whose pin has changed.
        clock: for the time of a pin.
    """

    def __init__(self, store: ExperimentStore, recorder: OutcomeRecorder, clock: Clock) -> None:
        self._store, self._recorder, self._clock = store, recorder, clock

    def pin(self, experiment: Experiment, slot: Slot | None, reason: Reason | None, run_digest: str = "") -> None:
        """Give an experiment a new pin: all its frames are segmented under it.

        Args:
            experiment: open or closed.
            slot: None: its frames wait.
            reason: None for the first pin.
            run_digest: empty: not known yet.

        Raises:
            StorageError: the disk refuses; the pins are as they were.
        """
        pin = Pin(
            number=(experiment.pin.number if experiment.pin else 0) + 1,
            bundle_sha256=slot.sha256 if slot else "",
            variant=slot.variant if slot else "",
            run_digest=run_digest,
            release_id=slot.release_id if slot else None,
            reason=reason,
            at=self._clock.now(),
        )
        self._store.add_pin(experiment, pin)
        self._recorder.report_experiment(experiment)

    def fit(self, experiment: Experiment, worker: SegmenterWorker) -> int:
        """Make the pin of an experiment match the segmenter that is about to work on it.

        Args:
            experiment: of the segmenter's slot, or without a slot.
            worker: a ready one.

        Returns:
            The pin's number.

        Raises:
            StorageError: the disk refuses; the pins are as they were.
        """
        ready, pin = worker.ready, experiment.pin
        if pin is None or not pin.bundle_sha256:
            self.pin(experiment, worker.slot, None, ready.run_digest)
        elif not pin.run_digest:
            self._store.fill_pin(experiment, ready.variant, ready.run_digest)
            self._recorder.report_experiment(experiment)
        elif pin.run_digest != ready.run_digest:
            engine = f"{ready.engine} {ready.engine_version}".strip()
            changed = because("pin.segmenter-changed", variant=ready.variant, engine=engine)
            self.pin(experiment, worker.slot, changed, ready.run_digest)
        assert experiment.pin is not None
        return experiment.pin.number
