"""Turns answers into outcomes: writes a line to the disk, then sends an event to the server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pydantic import ValidationError

from cellfleet.device.camera.frame_store import FrameFile
from cellfleet.device.interfaces import EventSink, FrameOutcome
from cellfleet.device.scheduling.assignment import Task
from cellfleet.device.scheduling.experiment_store import ExperimentStore
from cellfleet.device.scheduling.experiments import Experiment
from cellfleet.device.scheduling.worker import NotUnderstood, SegmenterWorker
from cellfleet.errors import StorageError
from cellfleet.wire.reason import Reason, because, english
from cellfleet.wire.segmenter import Answer, Failed, MaskRow, Segmented
from cellfleet.wire.telemetry_events import Event, ExperimentStarted, FrameFailed, FrameSegmented, Incident

Reply = Answer | NotUnderstood
_LOG = logging.getLogger(__name__)


@runtime_checkable
class PictureSink(Protocol):
    """A sink that also takes pictures: the spool."""

    def put_picture(
        self, kind: Literal["thumbnail", "overlay"], experiment: str, frame: str, pin: int, path: Path
    ) -> None:
        """Store a picture for upload; see ``Spool.put_picture``."""
        ...


class OutcomeRecorder:
    """Writes outcomes to the disk first, then sends them to the sink.

    Events that the sink refuses are sent again after the next scan, and after a restart from the disk.

    Args:
        store: of the experiments.
        sink: takes events, and pictures if it is a ``PictureSink``.
    """

    def __init__(self, store: ExperimentStore, sink: EventSink) -> None:
        self._store, self._sink = store, sink
        self._unsent: list[Event] = []

    @property
    def has_unsent(self) -> bool:
        """Whether the sink has not taken all events yet."""
        return bool(self._unsent)

    @property
    def takes_pictures(self) -> bool:
        """Whether the sink takes pictures."""
        return isinstance(self._sink, PictureSink)

    def report(self, changed: Sequence[Experiment], new: Sequence[tuple[Experiment, FrameFile]]) -> None:
        """Send unsent events, and the results of a scan, to the sink.

        Args:
            changed: experiments that began, ended or were found at the start.
            new: new frames.
        """
        waiting, self._unsent = self._unsent, []
        for event in waiting:
            self._put(event)
        for experiment in changed:
            self.report_experiment(experiment)
        for _, frame in new:
            self._put(frame.taken)
        for experiment in changed:
            if experiment.closed is None and not experiment.reported:
                for outcome in self._store.outcomes(experiment):
                    self._put(outcome)
            experiment.reported = True

    def report_experiment(self, experiment: Experiment) -> None:
        """Send the state of an experiment to the sink."""
        facts, pin = experiment.facts, experiment.pin
        self._put(
            ExperimentStarted(
                experiment=facts.experiment,
                plate=facts.plate,
                plate_format=facts.plate_format,
                started_at=facts.started_at,
                ended_at=facts.ended_at,
                pin=pin.number if pin else 0,
                pinned_sha256=pin.bundle_sha256 if pin else "",
                release_id=pin.release_id if pin else None,
                run_digest=pin.run_digest if pin else "",
                reason=english(pin.reason) if pin else "",
                reason_data=pin.reason if pin else None,
            )
        )

    def incident(self, kind: str, reason: Reason, now: datetime) -> None:
        """Report a failure that was handled.

        Args:
            kind: a short key.
            reason: what happened.
            now: with its zone.
        """
        text = english(reason)
        _LOG.warning("%s", text)
        self._put(Incident(at=now, kind=kind, text=text, reason_data=reason))

    def record(self, task: Task, worker: SegmenterWorker, answer: Reply, now: datetime) -> FrameOutcome | None:
        """Record the answer to a request for a frame; durable when the call returns.

        Args:
            task: the frame.
            worker: the segmenter that answered.
            answer: not a failure of the kind ``disk``, which is not an outcome.
            now: with its zone.

        Returns:
            None: the frame has an outcome already, or its experiment has a new pin.

        Raises:
            StorageError: the disk refuses; call it again.
        """
        sha256, memory_mb = worker.slot.sha256, answer.memory_mb
        match answer:
            case Segmented():
                row = self._row(task, answer.row, now)
                if isinstance(row, Reason):
                    return self.fail(task, sha256, row, now, memory_mb)
                if not self._store.note(task.experiment, row):
                    return None
                self._put(row)
                self._put_pictures(row, answer.files)
                return _outcome(task, sha256, "segmented", now, row.timings_ms.get("total", 0.0), memory_mb)
            case Failed():
                detail = f"{answer.message or 'no reason given'} {answer.hint}".strip()
                at_fault = "" if answer.kind == "frame" else sha256
                return self.fail(task, at_fault, because("frame.failed", detail=detail), now, memory_mb)
            case NotUnderstood():
                return self.fail(task, sha256, because("frame.not-understood", detail=answer.detail), now, memory_mb)
        wrong = because("frame.not-understood", detail=f"a frame is answered by {answer.event}")
        return self.fail(task, sha256, wrong, now, memory_mb)

    def fail(
        self, task: Task, sha256: str, reason: Reason, now: datetime, memory_mb: float = 0.0
    ) -> FrameOutcome | None:
        """Record that a frame has no mask.

        Args:
            task: the frame.
            sha256: the slot at fault; empty: none.
            reason: why.
            now: with its zone.
            memory_mb: of the segmenter after it; 0: unknown.

        Returns:
            None: the frame has an outcome already, or its experiment has a new pin.

        Raises:
            StorageError: the disk refuses.
        """
        failed = FrameFailed(
            experiment=task.experiment.name,
            frame=task.frame.taken.frame,
            pin=task.pin,
            reason=english(reason),
            reason_data=reason,
            failed_at=now,
        )
        if not self._store.note(task.experiment, failed):
            return None
        self._put(failed)
        return _outcome(task, sha256, "failed", now, 0.0, memory_mb, reason)

    def _put(self, event: Event) -> None:
        """Send an event to the sink; when the sink refuses it, keep it for the next scan."""
        try:
            self._sink.put(event)
        except StorageError as e:
            _LOG.warning("%s", e.message)
            self._unsent.append(event)

    @staticmethod
    def _row(task: Task, row: MaskRow, now: datetime) -> FrameSegmented | Reason:
        """The row as an event, or the reason why it is not valid."""
        pin = task.experiment.pin
        if (row.experiment, row.frame) != (task.experiment.name, task.frame.taken.frame):
            return because("frame.another")
        if pin is not None and pin.number == task.pin and pin.run_digest and row.run_digest != pin.run_digest:
            return because("frame.another-run")
        since_taken_ms = 1e3 * (now - task.frame.taken.taken_at).total_seconds()
        wait_ms = round(max(0.0, since_taken_ms - row.timings_ms.get("total", 0.0)), 3)
        fields = row.model_dump() | {"timings_ms": {**row.timings_ms, "wait": wait_ms}}
        try:
            return FrameSegmented(**fields, pin=task.pin, release_id=pin.release_id if pin else None)
        except ValidationError as e:
            return because("frame.not-understood", detail=str(e.errors()[0]["msg"]))

    def _put_pictures(self, row: FrameSegmented, files: Mapping[str, str]) -> None:
        if not isinstance(self._sink, PictureSink):
            return
        kinds: tuple[tuple[Literal["thumbnail", "overlay"], str], ...] = (
            ("thumbnail", "thumbnail"),
            ("overlay", "thumbnail_overlay"),
        )
        for kind, name in kinds:
            if name in files:
                with contextlib.suppress(StorageError):  # pictures are optional
                    self._sink.put_picture(kind, row.experiment, row.frame, row.pin, Path(files[name]))


def _outcome(
    task: Task,
    sha256: str,
    result: Literal["segmented", "failed"],
    now: datetime,
    milliseconds: float,
    memory_mb: float,
    reason: Reason | None = None,
) -> FrameOutcome:
    return FrameOutcome(
        experiment=task.experiment.name,
        frame=task.frame.taken.frame,
        slot=sha256,
        result=result,
        milliseconds=milliseconds,
        memory_mb=memory_mb,
        live=task.live,
        at=now,
        reason=reason,
    )
