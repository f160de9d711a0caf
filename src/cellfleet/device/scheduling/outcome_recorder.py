"""From a frame to its outcome: the request, the answer, the line on the disk, the event for the server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from cellfleet.config import Settings
from cellfleet.device.camera.frame_store import FrameFile
from cellfleet.device.interfaces import EventSink, FrameOutcome
from cellfleet.device.scheduling.experiments import Experiment, ExperimentLedger
from cellfleet.device.scheduling.queue import Task
from cellfleet.device.scheduling.worker import Answer, SegmenterWorker
from cellfleet.device.system.home import Home
from cellfleet.errors import StorageError, WireError
from cellfleet.ports import Clock
from cellfleet.wire.base import parse_data
from cellfleet.wire.events import Event, ExperimentStarted, FrameFailed, FrameSegmented, Incident
from cellfleet.wire.reason import Reason, because, english

_LOG = logging.getLogger(__name__)


@runtime_checkable
class PictureSink(Protocol):
    """A sink that takes pictures, too: the spool."""

    def put_picture(
        self, kind: Literal["thumbnail", "overlay"], experiment: str, frame: str, pin: int, path: Path
    ) -> None:
        """Keep a picture for its upload."""
        ...


class OutcomeRecorder:
    """Outcomes go to the disk first, then to the sink; after a power cut the sink gets what is unsure again."""

    def __init__(self, ledger: ExperimentLedger, sink: EventSink, clock: Clock) -> None:
        self._ledger, self._sink, self._clock = ledger, sink, clock
        self._untold: list[Event] = []

    @property
    def owes(self) -> bool:
        """The sink has not taken all events yet."""
        return bool(self._untold)

    def tell(self, changed: Sequence[Experiment], new: Sequence[tuple[Experiment, FrameFile]]) -> None:
        """Experiments that began, ended or were found, frames that were found, and what became of them before."""
        waiting, self._untold = self._untold, []
        for event in waiting:
            self._put(event)
        for experiment in changed:
            self.tell_experiment(experiment)
        for _, frame in new:
            self._put(frame.taken)
        for experiment in changed:
            if experiment.closed is None and not experiment.told:
                for outcome in self._ledger.told_before(experiment):
                    self._put(outcome)
            experiment.told = True

    def tell_experiment(self, experiment: Experiment) -> None:
        """How an experiment stands."""
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
        """Something went wrong and is handled."""
        text = english(reason)
        _LOG.warning("%s", text)
        self._put(Incident(at=now, kind=kind, text=text, reason_data=reason))

    def send(self, process: SegmenterWorker, task: Task, home: Home, settings: Settings) -> None:
        """Give a frame to a segmenter."""
        taken, frame = task.frame.taken, task.frame
        every = settings.device.thumbnail_every
        thumbnail = ""
        if isinstance(self._sink, PictureSink) and every and taken.index % every == 0:
            name = f"{taken.experiment}--{taken.frame}--{task.pin}.jpg"
            thumbnail = str(home.spool_file.parent / "pictures" / name)
        process.ask(
            "segment",
            task,
            frame=str(home.frames / taken.experiment / frame.file),
            facts=taken.model_dump(mode="json"),
            channels=list(frame.channels or task.experiment.facts.channels),
            pixel_size_um=frame.pixel_size_um,
            default_pixel_size_um=task.experiment.facts.pixel_size_um,
            out=str(task.experiment.results),
            overlay=settings.device.overlays,
            thumbnail=thumbnail,
        )

    def settle(self, task: Task, process: SegmenterWorker, answer: Answer, now: datetime) -> FrameOutcome | None:
        """Take an answer: durable when it returns. None: it does not count, or the frame is tried again.

        Raises:
            StorageError: the disk refuses; the answer is to be settled again.
        """
        sha256 = process.slot.sha256
        memory_mb = float(answer.get("memory_mb") or 0.0)
        if answer.get("event") == "segmented":
            row = self._row(task, answer, now)
            if isinstance(row, FrameSegmented):
                if not self._ledger.note(task.experiment, row):
                    return None
                self._put(row)
                self._pictures(row, answer)
                total_ms = row.timings_ms.get("total", 0.0)
                return _outcome(task, sha256, "segmented", now, total_ms, memory_mb)
            return self.fail(task, sha256, row, now, memory_mb)
        detail = f"{answer.get('message', 'no reason given')} {answer.get('hint', '')}".strip()
        reason = because("frame.failed", detail=detail)
        blamed = "" if answer.get("kind") == "frame" else sha256
        return self.fail(task, blamed, reason, now, memory_mb)

    def fail(
        self, task: Task, sha256: str, reason: Reason, now: datetime, memory_mb: float = 0.0
    ) -> FrameOutcome | None:
        """A frame has no mask, and why; ``sha256`` is the slot that is to blame, or empty."""
        failed = FrameFailed(
            experiment=task.experiment.name,
            frame=task.frame.taken.frame,
            pin=task.pin,
            reason=english(reason),
            reason_data=reason,
            failed_at=now,
        )
        if not self._ledger.note(task.experiment, failed):
            return None
        self._put(failed)
        return _outcome(task, sha256, "failed", now, 0.0, memory_mb, reason)

    def _put(self, event: Event) -> None:
        """To the sink; what it cannot keep now is put at the next look, and after a restart from what lies on the disk."""
        try:
            self._sink.put(event)
        except StorageError as e:
            _LOG.warning("%s", e.message)
            self._untold.append(event)

    def _row(self, task: Task, answer: Answer, now: datetime) -> FrameSegmented | Reason:
        """The outcome as an event; a reason when it cannot be one."""
        pin = task.experiment.pin
        try:
            row: dict[str, Any] = dict(answer["row"])
            waited_ms = max(0.0, 1e3 * (now - task.frame.taken.taken_at).total_seconds())
            timings = {**row.get("timings_ms", {})}
            timings["wait"] = round(max(0.0, waited_ms - timings.get("total", 0.0)), 3)
            release_id = pin.release_id if pin else None
            found = parse_data(
                FrameSegmented, {**row, "pin": task.pin, "release_id": release_id, "timings_ms": timings}
            )
        except (KeyError, TypeError, ValueError) as e:
            return because("frame.not-understood", detail=str(e))
        except WireError as e:
            return because("frame.not-understood", detail=e.message)
        if (found.experiment, found.frame) != (task.experiment.name, task.frame.taken.frame):
            return because("frame.another")
        if pin is not None and pin.number == task.pin and pin.run_digest and found.run_digest != pin.run_digest:
            return because("frame.another-run")
        return found

    def _pictures(self, row: FrameSegmented, answer: Answer) -> None:
        files = answer.get("files")
        if not isinstance(self._sink, PictureSink) or not isinstance(files, dict):
            return
        kinds: tuple[tuple[Literal["thumbnail", "overlay"], str], ...] = (
            ("thumbnail", "thumbnail"),
            ("overlay", "thumbnail_overlay"),
        )
        for kind, name in kinds:
            if isinstance(files.get(name), str):
                with contextlib.suppress(StorageError):  # a picture is no reason to stop
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
