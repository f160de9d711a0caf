"""Turns frames of the camera into results on the disk: runs segmenters and records the outcome of each frame.

A thread gives requests to the segmenters. All state is on the disk (``experiment_store``), so that this process may be killed
at any time: afterwards frames without an outcome are segmented again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from cellfleet.config import Settings
from cellfleet.device.camera.heartbeat import read_camera
from cellfleet.device.interfaces import EventSink, SelfTested, Slot, WarmSegmenter, WorkSnapshot
from cellfleet.device.scheduling.assignment import has_segmented, is_done, needed_slots, slot_of
from cellfleet.device.scheduling.dispatch import Dispatcher
from cellfleet.device.scheduling.downtime import DowntimeMeter
from cellfleet.device.scheduling.experiment_store import ExperimentStore
from cellfleet.device.scheduling.outcome_recorder import OutcomeRecorder
from cellfleet.device.scheduling.pinning import Pinning
from cellfleet.device.scheduling.segmenter_command import StartProgram, command_of, start_process
from cellfleet.device.scheduling.selftest_runner import run_selftest
from cellfleet.device.scheduling.worker import SegmenterWorker
from cellfleet.device.scheduling.worker_pool import START_TIMEOUT_S, WorkerPool
from cellfleet.device.slots import Slots
from cellfleet.device.system.error_reasons import error_reason
from cellfleet.device.system.home import Home
from cellfleet.errors import CellfleetError, DeviceError
from cellfleet.ports import Clock
from cellfleet.wire.reason import Reason, because, english
from cellfleet.wire.states import Counters

_LOG = logging.getLogger(__name__)
SegmenterCondition = Literal["running", "starting", "stopped", "failing"]
_SCAN_EVERY_S = 0.4


class FrameScheduler:
    """The scheduler of one instrument; implements ``interfaces.Scheduler``.

    Args:
        home, settings, clock: of the instrument.
        sink: takes events, and pictures if it is a ``PictureSink``.
        start: starts a segmenter program.
    """

    def __init__(
        self, home: Home, settings: Settings, sink: EventSink, clock: Clock, start: StartProgram = start_process
    ) -> None:
        self._home, self._clock = home, clock
        self._lock = threading.RLock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._store = ExperimentStore(home.frames, home.results)
        self._recorder = OutcomeRecorder(self._store, sink)
        self._pinning = Pinning(self._store, self._recorder, clock)
        self._pool = WorkerPool(
            command_of(settings.device.software),
            settings.device.threads,
            home.log,
            clock,
            frame_timeout_s=settings.agent.frame_timeout_s,
            retry_s=settings.agent.retry_s,
            wake=self._wake.set,
            start=start,
        )
        self._dispatch = Dispatcher(
            home, settings, clock, self._pool, self._recorder, self._pinning, self._store.has_ended
        )
        self._downtime = DowntimeMeter()
        self._active: Slot | None = None
        self._slots: dict[str, Slot] = {}
        self._scanned_s = -1e18
        self._problem: Reason | None = None
        self._scan()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def poll(self, now: datetime) -> WorkSnapshot:
        """Process what is new; see ``interfaces.Scheduler``."""
        with self._lock:
            self._try_step(now)
            frames, failures = self._dispatch.take()
            current = self._worker()
            running = self._store.running()
            camera, camera_problem = read_camera(self._home.camera_file, now)
            return WorkSnapshot(
                frames=frames,
                failures=failures,
                memory_mb=self._pool.memory_mb(),
                restarts=self._pool.restarts,
                ready=current is not None and current.phase == "ready",
                gap_s=self._downtime.take(self._clock.monotonic_s()),
                experiment=running.name if running else None,
                pending=sum(len(e.pending) for e in self._store.open()),
                camera=camera,
                segmenter=self._condition(current),
                problems=tuple(p for p in (self._problem, camera_problem, *self._slot_problems()) if p is not None),
                pids=self._pool.pids(),
            )

    def warm(self, slot: Slot) -> WarmSegmenter:
        """Start a segmenter beside the others; see ``interfaces.Scheduler``."""
        with self._lock:
            process = self._pool.keep(slot)
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
        """Segment golden frames with a separate segmenter; see ``interfaces.Scheduler``."""
        try:
            process = self._pool.start_separate(slot)
        except DeviceError as e:
            return SelfTested(slot.variant, "", 0.0, (), error_reason(e))
        try:
            return run_selftest(process, golden_of, timeout_s)
        finally:
            process.close()

    def switch(self, slot: Slot | None) -> None:
        """Use this slot for experiments that are not pinned yet."""
        with self._lock:
            self._active = slot
            if slot is not None:
                self._slots[slot.sha256] = slot
                self._pool.let_go(slot.sha256)
            self._want()
        self._wake.set()

    def repin(self, bad: Slot, good: Slot | None, since: datetime, reason: Reason) -> None:
        """Segment all frames of a bad slot again; see ``interfaces.Scheduler``."""
        with self._lock:
            if good is not None:
                self._slots[good.sha256] = good
            self._scan()
            for experiment in list(self._store.experiments.values()):
                if has_segmented(experiment, bad.sha256, since, self._store.outcomes):
                    self._pinning.pin(experiment, good, reason)
            self._want()
        self._wake.set()

    def stop_unneeded(self, slot: Slot) -> None:
        """End a segmenter that is not needed; see ``interfaces.Scheduler``."""
        with self._lock:
            self._pool.let_go(slot.sha256)
            self._want()

    def pinned(self) -> frozenset[str]:
        """Slots that experiments need which are not done."""
        with self._lock:
            pins = (e.pin for e in self._store.open())
            return frozenset(pin.bundle_sha256 for pin in pins if pin is not None and pin.bundle_sha256)

    def counters(self) -> Counters:
        """Frames since provisioning."""
        with self._lock:
            return self._store.counters()

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
            except Exception:  # keep the thread alive: without it the instrument stops
                _LOG.exception("a step of the scheduler failed; the next one is tried")
                self._stop.wait(_SCAN_EVERY_S)
            if self._problem:
                self._stop.wait(_SCAN_EVERY_S)

    def _try_step(self, now: datetime) -> None:
        """Make a step. After an error of the disk the next step retries: nothing is discarded before it is written."""
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
        self._dispatch.harvest(now)
        for loss in self._pool.step():
            if self._active is not None and loss.slot.sha256 == self._active.sha256:
                self._downtime.lost(loss.at_s)
            self._dispatch.note_loss(loss, now)
        self._want()
        if self._dispatch.may_feed():
            for worker in list(self._pool.free()):
                experiments = [e for e in self._store.open() if slot_of(e, self._active_sha256) == worker.slot.sha256]
                self._dispatch.feed(worker, experiments, now)
        self._close_done()
        self._downtime.update(self._active is not None, self._worker(), self._clock.monotonic_s())

    def _scan(self) -> None:
        changed, new = self._store.scan()
        self._recorder.report(changed, new)
        self._scanned_s = self._clock.monotonic_s()

    def _want(self) -> None:
        """Request the needed segmenters from the pool."""
        self._pin_orphans()
        needed = needed_slots(self._store.open(), self._active_sha256, self._store.has_ended)
        found = {sha256: self._slot(sha256) for sha256 in needed}
        self._pool.want({sha256: slot for sha256, slot in found.items() if slot is not None})

    def _pin_orphans(self) -> None:
        """Pin experiments whose slot is no longer installed to the active slot."""
        for experiment in self._store.open():
            pin = experiment.pin
            if self._active is None or pin is None or not pin.bundle_sha256 or self._slot(pin.bundle_sha256):
                continue
            self._pinning.pin(experiment, self._active, because("pin.slot-gone", slot=pin.bundle_sha256[:12]))

    def _slot(self, sha256: str) -> Slot | None:
        if sha256 not in self._slots and (found := Slots(self._home).find(sha256)) is not None:
            self._slots[sha256] = found
        return self._slots.get(sha256)

    def _close_done(self) -> None:
        if self._recorder.has_unsent:  # a closed experiment is not reported again
            return
        for experiment in list(self._store.open()):
            if is_done(experiment, self._store.has_ended):
                self._store.close(experiment)

    @property
    def _active_sha256(self) -> str:
        return self._active.sha256 if self._active is not None else ""

    def _worker(self) -> SegmenterWorker | None:
        """The segmenter of the active slot."""
        return self._pool.find(self._active_sha256)

    def _condition(self, worker: SegmenterWorker | None) -> SegmenterCondition:
        if self._active is None:
            return "stopped"
        if worker is not None and worker.phase == "ready":
            return "running"
        return "failing" if self._pool.refusal(self._active.sha256) else "starting"

    def _slot_problems(self) -> list[Reason | None]:
        return [self._pool.refusal(self._active_sha256), *self._store.problems.values()]
