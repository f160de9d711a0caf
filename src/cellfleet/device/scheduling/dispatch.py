"""Sends requests to segmenters and records answers and losses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cellfleet.config import Settings
from cellfleet.device.interfaces import FrameOutcome, SegmenterFailure
from cellfleet.device.scheduling.assignment import HasEnded, Task, has_run, next_tables, next_task
from cellfleet.device.scheduling.experiments import Experiment
from cellfleet.device.scheduling.outcome_recorder import OutcomeRecorder
from cellfleet.device.scheduling.pinning import Pinning
from cellfleet.device.scheduling.worker import SegmenterWorker
from cellfleet.device.scheduling.worker_pool import Loss, WorkerPool
from cellfleet.device.system.home import Home
from cellfleet.errors import StorageError
from cellfleet.ports import Clock
from cellfleet.wire.reason import Reason, because
from cellfleet.wire.segmenter import Failed, FrameFacts, SegmentRequest, TablesRequest

MOST_ATTEMPTS = 2
DISK_WAIT_S = 5.0


class Dispatcher:
    """Gives free segmenters their next request, and records its outcome.

    Args:
        home, settings, clock: of the instrument.
        pool: the segmenters.
        recorder: writes outcomes.
        pinning: makes the pin of an experiment fit its segmenter.
        has_ended: no frame of the experiment is to come.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        clock: Clock,
        pool: WorkerPool,
        recorder: OutcomeRecorder,
        pinning: Pinning,
        has_ended: HasEnded,
    ) -> None:
        self._home, self._settings, self._clock = home, settings, clock
        self._pool, self._recorder, self._pinning, self._has_ended = pool, recorder, pinning, has_ended
        self._feed_after_s = -1e18
        self._attempts: dict[tuple[str, str, int], int] = {}
        self._refusals: dict[str, Reason] = {}
        self._outcomes: list[FrameOutcome] = []
        self._failures: list[SegmenterFailure] = []

    def take(self) -> tuple[tuple[FrameOutcome, ...], tuple[SegmenterFailure, ...]]:
        """Outcomes and lost segmenters since the previous call."""
        found = tuple(self._outcomes), tuple(self._failures)
        self._outcomes, self._failures = [], []
        return found

    def may_feed(self) -> bool:
        """Whether requests may be sent: the disk has not refused results recently."""
        return self._clock.monotonic_s() >= self._feed_after_s

    def feed(self, worker: SegmenterWorker, experiments: Sequence[Experiment], now: datetime) -> None:
        """Give a free segmenter its next frame, or tables that are due.

        Args:
            worker: a free one.
            experiments: of its slot that are not closed, the oldest first.
            now: with its zone.

        Raises:
            StorageError: a pin cannot be written; the frame waits.
        """
        task = next_task(experiments, now)
        if task is not None:
            task.pin = self._pinning.fit(task.experiment, worker)
            worker.ask(self._request(task), task)
            return
        for experiment in experiments:
            if not has_run(experiment, worker.ready.run_digest):
                experiment.tables_at = -1  # this segmenter cannot write the tables of another run
        due = next_tables(experiments, worker.ready.run_digest, self._has_ended)
        if due is not None:
            worker.ask(TablesRequest(out=str(due.results)), due)

    def harvest(self, now: datetime) -> None:
        """Record the answers that have arrived.

        Raises:
            StorageError: the disk refuses an outcome or a segmenter's results; the frame waits.
        """
        for worker in list(self._pool.answered()):
            request = worker.request
            assert request is not None
            assert request.answer is not None
            answer, about = request.answer, request.about
            if isinstance(answer, Failed) and answer.kind == "disk":
                worker.take_answer()
                self._feed_after_s = self._clock.monotonic_s() + DISK_WAIT_S
                text = answer.message or "the disk refuses results"
                raise StorageError(text, hint="free some space on the disk of this instrument")
            if isinstance(about, Task):
                outcome = self._recorder.record(about, worker, answer, now)  # durable, or it raises
                if outcome is not None:
                    self._outcomes.append(outcome)
                    self._attempts.pop(_key(about), None)
            elif isinstance(about, Experiment):
                is_over = self._has_ended(about) and not about.pending
                about.tables_at = -1 if is_over else len(about.outcomes)
            worker.take_answer()

    def note_loss(self, loss: Loss, now: datetime) -> None:
        """Report a lost segmenter; retry its frame once, then mark it failed.

        Args:
            loss: which segmenter, how, and what it worked on.
            now: with its zone.

        Raises:
            StorageError: the outcome of the frame cannot be written; the frame is retried.
        """
        sha256 = loss.slot.sha256
        if loss.kind != "refused":
            self._failures.append(SegmenterFailure(sha256, loss.kind, loss.reason, now))
        if loss.kind != "refused" or self._refusals.get(sha256) != loss.reason:
            self._recorder.incident(f"segmenter-{loss.kind}", loss.reason, now)
        self._refusals[sha256] = loss.reason
        if isinstance(loss.about, Experiment):
            loss.about.tables_at = -1  # the segmenter was lost while it wrote the tables: do not try again
        elif isinstance(loss.about, Task):
            self._retry(loss.about, loss, now)

    def _retry(self, task: Task, loss: Loss, now: datetime) -> None:
        attempts = self._attempts[_key(task)] = self._attempts.get(_key(task), 0) + 1
        if attempts < MOST_ATTEMPTS:
            return
        reason = because("frame.lost", loss.reason, count=attempts)
        outcome = self._recorder.fail(task, loss.slot.sha256, reason, now)
        del self._attempts[_key(task)]
        if outcome is not None:
            self._outcomes.append(outcome)

    def _request(self, task: Task) -> SegmentRequest:
        taken, frame = task.frame.taken, task.frame
        every = self._settings.device.thumbnail_every
        thumbnail = ""
        if self._recorder.takes_pictures and every and taken.index % every == 0:
            name = f"{taken.experiment}--{taken.frame}--{task.pin}.jpg"
            thumbnail = str(self._home.spool_file.parent / "pictures" / name)
        return SegmentRequest(
            frame=str(self._home.frames / taken.experiment / frame.file),
            facts=FrameFacts(**taken.model_dump()),
            channels=frame.channels or task.experiment.facts.channels,
            pixel_size_um=frame.pixel_size_um,
            default_pixel_size_um=task.experiment.facts.pixel_size_um,
            out=str(task.experiment.results),
            overlay=self._settings.device.overlays,
            thumbnail=thumbnail,
        )


def _key(task: Task) -> tuple[str, str, int]:
    return task.experiment.name, task.frame.taken.frame, task.pin
