"""Frames of the camera to results on the disk: what to draw next, with which slot, and what became of it.

A thread feeds the segmenters; ``poll`` only looks. Everything that counts lies on the disk (``ledger``), so that this
process may be killed at any moment: what was drawn is not drawn again, what was not is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cellfleet.config import Settings
from cellfleet.device.camera.heartbeat import read_camera
from cellfleet.device.interfaces import (
    EventSink,
    FrameOutcome,
    SegmenterFailure,
    SelfTested,
    Slot,
    WarmSegmenter,
    WorkSnapshot,
)
from cellfleet.device.scheduling.downtime import DowntimeMeter
from cellfleet.device.scheduling.experiments import Experiment, ExperimentLedger
from cellfleet.device.scheduling.outcome_recorder import OutcomeRecorder
from cellfleet.device.scheduling.pins import Pin
from cellfleet.device.scheduling.queue import Task, next_task
from cellfleet.device.scheduling.selftest_runner import run_selftest
from cellfleet.device.scheduling.worker import SegmenterWorker, command_of
from cellfleet.device.scheduling.worker_pool import START_TIMEOUT_S, Loss, WorkerPool
from cellfleet.device.slots import Slots
from cellfleet.device.system.error_reasons import error_reason
from cellfleet.device.system.home import Home
from cellfleet.errors import CellfleetError, DeviceError, StorageError
from cellfleet.ports import Clock
from cellfleet.wire.reason import Reason, because, english
from cellfleet.wire.states import Counters

_LOG = logging.getLogger(__name__)
SegmenterWord = Literal["running", "starting", "stopped", "failing"]
_SCAN_EVERY_S = 0.4
_TABLES_EVERY = 50
_MOST_ATTEMPTS = 2
_DISK_WAIT_S = 5.0


class FrameScheduler:
    """The work of one instrument; implements ``seams.Work``.

    Args:
        home, settings, clock: of the instrument.
        sink: takes events, and pictures where it can.
    """

    def __init__(self, home: Home, settings: Settings, sink: EventSink, clock: Clock) -> None:
        self._home, self._settings, self._clock = home, settings, clock
        self._lock = threading.RLock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._ledger = ExperimentLedger(home.frames, home.results)
        self._settling = OutcomeRecorder(self._ledger, sink, clock)
        self._pool = WorkerPool(
            command_of(settings.device.software),
            settings.device.threads,
            home.log,
            clock,
            frame_timeout_s=settings.agent.frame_timeout_s,
            retry_s=settings.agent.retry_s,
            wake=self._wake.set,
        )
        self._gap = DowntimeMeter()
        self._current: Slot | None = None
        self._slots: dict[str, Slot] = {}
        self._refusals: dict[str, Reason] = {}
        self._feed_after_s = -1e18
        self._attempts: dict[tuple[str, str, int], int] = {}
        self._outcomes: list[FrameOutcome] = []
        self._troubles: list[SegmenterFailure] = []
        self._scanned_s = -1e18
        self._problem: Reason | None = None
        self._scan()
        self._thread = threading.Thread(target=self._run, name="work", daemon=True)
        self._thread.start()

    def poll(self, now: datetime) -> WorkSnapshot:
        """Look around once; see ``seams.Work``."""
        with self._lock:
            self._try_step(now)
            frames, self._outcomes = tuple(self._outcomes), []
            troubles, self._troubles = tuple(self._troubles), []
            current = self._pool.find(self._current.sha256) if self._current else None
            running = self._ledger.running()
            camera, camera_problem = read_camera(self._home.camera_file, now)
            return WorkSnapshot(
                frames=frames,
                troubles=troubles,
                memory_mb=self._pool.memory_mb(),
                restarts=self._pool.restarts,
                ready=current is not None and current.phase == "ready",
                gap_s=self._gap.take(self._clock.monotonic_s()),
                experiment=running.name if running else None,
                pending=sum(len(e.pending) for e in self._ledger.open()),
                camera=camera,
                segmenter=self._segmenter_word(current),
                problems=tuple(p for p in (self._problem, camera_problem, *self._slot_problems()) if p is not None),
                pids=self._pool.pids(),
            )

    def warm(self, slot: Slot) -> WarmSegmenter:
        """Start a segmenter beside the others; see ``seams.Work``."""
        with self._lock:
            process = self._pool.hold(slot)
        is_ready = process.wait(START_TIMEOUT_S, lambda p: p.ready_s is not None)
        if is_ready and process.ended_s is None:
            return WarmSegmenter(process.ready.variant, process.ready.run_digest, process.memory_mb())
        with self._lock:
            self._pool.let_go(slot.sha256)
        if process.ended_s is None:
            process.kill()
            late = because("segmenter.not-ready", slot=slot.label, seconds=START_TIMEOUT_S)
            raise DeviceError(english(late))
        raise DeviceError(english(process.refusal or process.why_ended()))

    def selftest(self, slot: Slot, golden_of: Sequence[Path], timeout_s: float) -> SelfTested:
        """Let a segmenter of its own draw golden frames; see ``seams.Work``."""
        try:
            process = self._pool.start_own(slot)
        except DeviceError as e:
            return SelfTested(slot.variant, "", 0.0, (), error_reason(e))
        try:
            return run_selftest(process, golden_of, timeout_s)
        finally:
            process.close()

    def switch(self, slot: Slot | None) -> None:
        """Experiments that are not pinned yet use this slot from now on."""
        with self._lock:
            self._current = slot
            if slot is not None:
                self._slots[slot.sha256] = slot
                self._pool.let_go(slot.sha256)
            self._want()
        self._wake.set()

    def repin(self, bad: Slot, good: Slot | None, since: datetime, reason: Reason) -> None:
        """Everything that the bad slot draws, or drew since then, is drawn again; see ``seams.Work``."""
        with self._lock:
            if good is not None:
                self._slots[good.sha256] = good
            self._scan()
            for experiment in list(self._ledger.experiments.values()):
                if _drew(experiment, bad.sha256, since):
                    self._pin(experiment, good, reason)
            self._want()
        self._wake.set()

    def cool(self, slot: Slot) -> None:
        """End a segmenter that nobody needs; see ``seams.Work``."""
        with self._lock:
            self._pool.let_go(slot.sha256)
            self._want()

    def pinned(self) -> frozenset[str]:
        """Slots that experiments need which have not ended, or have frames left."""
        with self._lock:
            needed = (e for e in self._ledger.open() if e.pin is not None)
            return frozenset(e.pin.bundle_sha256 for e in needed if e.pin is not None and e.pin.bundle_sha256)

    def counters(self) -> Counters:
        """Frames since provisioning."""
        with self._lock:
            return self._ledger.counters()

    def close(self) -> None:
        """End the thread and all segmenters."""
        self._stop.set()
        self._wake.set()
        self._thread.join(10.0)
        with self._lock:
            self._pool.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_SCAN_EVERY_S)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                with self._lock:
                    self._try_step(self._clock.now())
            except Exception:  # a thread that ends in silence would stop the instrument's work
                _LOG.exception("the work failed; it goes on")
                self._stop.wait(_SCAN_EVERY_S)
            if self._problem:
                self._stop.wait(_SCAN_EVERY_S)

    def _try_step(self, now: datetime) -> None:
        """What the disk refuses now is tried again at the next step: nothing is forgotten before it is written."""
        try:
            self._step(now)
            self._problem = None
        except CellfleetError as e:
            self._note_problem(error_reason(e))
        except OSError as e:
            self._note_problem(because("error.storage", detail=f"{e.filename or 'the disk'}: {e.strerror}"))

    def _note_problem(self, problem: Reason) -> None:
        if problem != self._problem:
            _LOG.warning("%s", english(problem))
        self._problem = problem

    def _step(self, now: datetime) -> None:
        if self._clock.monotonic_s() - self._scanned_s >= _SCAN_EVERY_S:
            self._scan()
        self._harvest(now)
        for loss in self._pool.step():
            self._lost(loss, now)
        self._want()
        if self._clock.monotonic_s() >= self._feed_after_s:
            for process in list(self._pool.free()):
                self._feed(process, now)
        self._close_done()
        current = self._pool.find(self._current.sha256) if self._current else None
        self._gap.look(self._current is not None, current, self._clock.monotonic_s())

    def _scan(self) -> None:
        changed, new = self._ledger.scan()
        self._settling.tell(changed, new)
        self._scanned_s = self._clock.monotonic_s()

    def _want(self) -> None:
        """The active slot, and those of experiments that go on or have frames left."""
        wanted = {self._current.sha256: self._current} if self._current else {}
        for experiment in self._ledger.open():
            if self._ledger.has_ended(experiment) and not experiment.pending and experiment.tables_at < 0:
                continue
            if (slot := self._slot_of(experiment)) is not None:
                wanted[slot.sha256] = slot
        self._pool.want(wanted)

    def _slot_of(self, experiment: Experiment) -> Slot | None:
        pin = experiment.pin
        if pin is None or not pin.bundle_sha256:
            return self._current
        slot = self._slots.get(pin.bundle_sha256) or Slots(self._home).find(pin.bundle_sha256)
        if slot is not None:
            self._slots[slot.sha256] = slot
            return slot
        if self._current is None:
            return None
        self._pin(experiment, self._current, because("pin.slot-gone", slot=pin.bundle_sha256[:12]))
        return self._current

    def _pin(self, experiment: Experiment, slot: Slot | None, reason: Reason | None, run_digest: str = "") -> None:
        pin = Pin(
            number=(experiment.pin.number if experiment.pin else 0) + 1,
            bundle_sha256=slot.sha256 if slot else "",
            variant=slot.variant if slot else "",
            run_digest=run_digest,
            release_id=slot.release_id if slot else None,
            reason=reason,
            at=self._clock.now(),
        )
        self._ledger.pin_anew(experiment, pin)
        self._settling.tell_experiment(experiment)

    def _feed(self, process: SegmenterWorker, now: datetime) -> None:
        """Give a free segmenter its next frame: live ones first, then the oldest."""
        mine = [e for e in self._ledger.open() if self._slot_of(e) is not None]
        mine = [e for e in mine if (slot := self._slot_of(e)) is not None and slot.sha256 == process.slot.sha256]
        task = next_task(mine, now)
        if task is None:
            self._ask_tables(process, mine)
            return
        experiment = task.experiment
        self._check_pin(experiment, process)
        task.pin = experiment.pin.number if experiment.pin else 0
        self._settling.send(process, task, self._home, self._settings)

    def _check_pin(self, experiment: Experiment, process: SegmenterWorker) -> None:
        """An experiment is drawn by one run from its first frame to its last."""
        ready, pin = process.ready, experiment.pin
        if pin is None or not pin.bundle_sha256:
            self._pin(experiment, process.slot, None, ready.run_digest)
        elif not pin.run_digest:
            self._ledger.fill_pin(experiment, ready.variant, ready.run_digest)
            self._settling.tell_experiment(experiment)
        elif pin.run_digest != ready.run_digest:
            reason = because("pin.segmenter-changed", variant=ready.variant, engine=ready.engine)
            self._pin(experiment, process.slot, reason, ready.run_digest)

    def _ask_tables(self, process: SegmenterWorker, mine: Sequence[Experiment]) -> None:
        for experiment in mine:
            if experiment.pin is None or experiment.pin.run_digest != process.ready.run_digest:
                experiment.tables_at = -1  # they are of another run than this segmenter's
                continue
            count = len(experiment.outcomes)
            is_over = self._ledger.has_ended(experiment) and not experiment.pending
            grown = count - max(0, experiment.tables_at) >= _TABLES_EVERY
            if count and ((is_over and experiment.tables_at >= 0) or grown):
                process.ask("tables", experiment, out=str(experiment.results))
                return

    def _harvest(self, now: datetime) -> None:
        for process in list(self._pool.answered()):
            request = process.request
            assert request is not None
            assert request.answer is not None
            if request.answer.get("kind") == "disk":
                self._disk_refuses(process, str(request.answer.get("message", "")))
            elif isinstance(request.about, Task):
                task = request.about
                outcome = self._settling.settle(task, process, request.answer, now)  # durable, or it raises
                if outcome is not None:
                    self._outcomes.append(outcome)
                    self._attempts.pop((task.experiment.name, task.frame.taken.frame, task.pin), None)
            elif isinstance(request.about, Experiment):
                experiment = request.about
                is_over = self._ledger.has_ended(experiment) and not experiment.pending
                experiment.tables_at = -1 if is_over else len(experiment.outcomes)
            process.take_answer()

    def _disk_refuses(self, process: SegmenterWorker, reason: str) -> None:
        """No result can be written: the frame waits, it did not fail."""
        process.take_answer()
        self._feed_after_s = self._clock.monotonic_s() + _DISK_WAIT_S
        raise StorageError(reason or "the disk refuses results", hint="free some space on the disk of this instrument")

    def _lost(self, loss: Loss, now: datetime) -> None:
        """Report a lost segmenter; retry its frame once, then mark it failed."""
        if self._current is not None and loss.slot.sha256 == self._current.sha256:
            self._gap.lost(loss.at_s)
        if loss.kind != "refused":
            self._troubles.append(SegmenterFailure(loss.slot.sha256, loss.kind, loss.reason, now))
        if loss.kind != "refused" or self._refusals.get(loss.slot.sha256) != loss.reason:
            self._settling.incident(f"segmenter-{loss.kind}", loss.reason, now)
        self._refusals[loss.slot.sha256] = loss.reason
        task = loss.about
        if isinstance(task, Experiment):
            task.tables_at = -1  # the tables of that experiment are what ended it: it is done without
        if not isinstance(task, Task):
            return
        key = (task.experiment.name, task.frame.taken.frame, task.pin)
        self._attempts[key] = self._attempts.get(key, 0) + 1
        if self._attempts[key] >= _MOST_ATTEMPTS:
            reason = because("frame.lost", loss.reason, count=self._attempts.pop(key))
            outcome = self._settling.fail(task, loss.slot.sha256, reason, now)
            if outcome is not None:
                self._outcomes.append(outcome)

    def _close_done(self) -> None:
        if self._settling.owes:  # a closed experiment is not told again
            return
        for experiment in list(self._ledger.open()):
            is_over = self._ledger.has_ended(experiment) and not experiment.pending
            if is_over and (experiment.tables_at < 0 or not experiment.outcomes):
                self._ledger.close(experiment)

    def _segmenter_word(self, process: SegmenterWorker | None) -> SegmenterWord:
        if self._current is None:
            return "stopped"
        if process is not None and process.phase == "ready":
            return "running"
        return "failing" if self._pool.refusal(self._current.sha256) else "starting"

    def _slot_problems(self) -> list[Reason | None]:
        refusals = [self._pool.refusal(self._current.sha256)] if self._current else []
        return [*refusals, *self._ledger.problems.values()]


def _drew(experiment: Experiment, sha256: str, since: datetime) -> bool:
    pin = experiment.pin
    if pin is None or pin.bundle_sha256 != sha256:
        return False
    ended = experiment.facts.ended_at
    return ended is None or experiment.closed is None or ended >= since or pin.at >= since - timedelta(seconds=1)
