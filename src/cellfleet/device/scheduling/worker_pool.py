"""The segmenters of an instrument: one per slot that is needed. Started, watched, started again, ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cellfleet.device.interfaces import Slot
from cellfleet.device.scheduling.segmenter_command import StartProgram, start_process
from cellfleet.device.scheduling.worker import SegmenterWorker
from cellfleet.device.system.error_reasons import error_reason
from cellfleet.errors import DeviceError
from cellfleet.ports import Clock
from cellfleet.wire.reason import Reason, because

_LOG = logging.getLogger(__name__)
START_TIMEOUT_S = 180.0
_MEMORY_EVERY_S = 2.0
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Loss:
    """A segmenter that has ended without being asked to.

    Attributes:
        kind: ``refused``: it cannot use this bundle.
        about: what the request was about that it was working on; None: it was idle.
        at_s: monotonic time of its end.
    """

    slot: Slot
    kind: Literal["crash", "hang", "refused"]
    reason: Reason
    about: Any = None
    at_s: float = 0.0


@dataclass
class _Place:
    slot: Slot
    process: SegmenterWorker | None = None
    held: bool = False
    failures: int = 0
    not_before_s: float = -1e18
    refusal: Reason | None = None
    memory_mb: float = 0.0
    measured_s: float = -1e18


class WorkerPool:
    """Segmenters by the SHA-256 of their slot. Not safe for threads: its owner holds a lock.

    Args:
        command: the program.
        threads: of each; 0: all cores.
        log: folder of their logs.
        frame_timeout_s: a request that takes longer hangs.
        retry_s: first wait before one that ended twice in a row is started again.
        clock: monotonic time.
        wake: called whenever something happened.
        start: starts the program.

    Attributes:
        restarts: segmenters that were started in place of one that was lost.
    """

    def __init__(
        self,
        command: Sequence[str],
        threads: int,
        log: Path,
        clock: Clock,
        *,
        frame_timeout_s: float,
        retry_s: float,
        wake: Callable[[], None] = lambda: None,
        start: StartProgram = start_process,
    ) -> None:
        self._command, self._threads, self._log, self._clock = command, threads, log, clock
        self._frame_timeout_s, self._retry_s, self._wake = frame_timeout_s, retry_s, wake
        self._start_program = start
        self._places: dict[str, _Place] = {}
        self.restarts = 0

    def want(self, slots: Mapping[str, Slot]) -> None:
        """These are needed: those that are not there are started by ``step``, others are ended when they are idle."""
        for sha256, slot in slots.items():
            self._places.setdefault(sha256, _Place(slot)).slot = slot
        for sha256 in [s for s, p in self._places.items() if s not in slots and not p.held]:
            place = self._places[sha256]
            if place.process is None or place.process.request is None or place.process.phase != "ready":
                self._end(sha256)

    def hold(self, slot: Slot) -> SegmenterWorker:
        """Start one, if it is not there, and keep it although no experiment needs it yet."""
        place = self._places.setdefault(slot.sha256, _Place(slot))
        place.held = True
        if place.process is None or place.process.ended_s is not None:
            place.slot, place.refusal = slot, None
            place.process = self._start(slot)
        return place.process

    def let_go(self, sha256: str) -> None:
        """It need not be kept any more."""
        if sha256 in self._places:
            self._places[sha256].held = False

    def step(self) -> list[Loss]:
        """Start what is missing, end what hangs. Returns what was lost."""
        now_s = self._clock.monotonic_s()
        losses = []
        for place in self._places.values():
            if place.process is not None and (loss := self._look(place, place.process, now_s)) is not None:
                losses.append(loss)
            if place.process is None and now_s >= place.not_before_s:
                try:
                    place.process = self._start(place.slot)
                    self.restarts += place.failures > 0
                except DeviceError as e:
                    losses.append(self._lost(place, "refused", error_reason(e), now_s))
        return losses

    def free(self) -> Iterator[SegmenterWorker]:
        """Those that take a request now."""
        return (p.process for p in self._places.values() if p.process is not None and p.process.is_free)

    def answered(self) -> Iterator[SegmenterWorker]:
        """Those whose request was answered."""
        for place in self._places.values():
            process = place.process
            if process is not None and process.request is not None and process.request.answer is not None:
                place.failures = 0
                yield process

    def find(self, sha256: str) -> SegmenterWorker | None:
        """The segmenter of a slot, in whatever phase."""
        place = self._places.get(sha256)
        return place.process if place is not None else None

    def refusal(self, sha256: str) -> Reason | None:
        """Why a slot has no segmenter; None when it has one, or will have."""
        place = self._places.get(sha256)
        return place.refusal if place is not None else None

    def memory_mb(self) -> dict[str, float]:
        """Of every segmenter that runs; asked of the system every other second."""
        now_s = self._clock.monotonic_s()
        out = {}
        for sha256, place in self._places.items():
            if place.process is None or place.process.ended_s is not None:
                continue
            if now_s - place.measured_s >= _MEMORY_EVERY_S:
                place.memory_mb, place.measured_s = place.process.memory_mb(), now_s
            out[sha256] = round(place.memory_mb, 1)
        return out

    def pids(self) -> tuple[tuple[str, int], ...]:
        """Slot and process id of all that run."""
        running = ((s, p.process) for s, p in self._places.items())
        return tuple((s, p.pid) for s, p in running if p is not None and p.ended_s is None)

    def close(self) -> None:
        """End all, by the end of their input first."""
        for sha256 in list(self._places):
            self._end(sha256)

    def start_own(self, slot: Slot) -> SegmenterWorker:
        """One that is not of the pool; its owner ends it."""
        return self._start(slot, "selftest-")

    def _start(self, slot: Slot, prefix: str = "") -> SegmenterWorker:
        log = self._log / f"segmenter-{prefix}{slot.sha256[:8]}.log"
        return SegmenterWorker(
            self._command, slot, self._threads, log, self._clock, wake=self._wake, start=self._start_program
        )

    def _look(self, place: _Place, process: SegmenterWorker, now_s: float) -> Loss | None:
        request = process.request
        if process.ended_s is not None:
            if request is not None and request.answer is not None:
                return None  # it answered before it ended; the answer is taken first
            if process.refusal is not None:
                return self._lost(place, "refused", process.refusal, now_s)
            return self._lost(place, "crash", process.why_ended(), now_s)
        if request is not None and request.answer is None and now_s - request.since_s > self._frame_timeout_s:
            hung = because("segmenter.hung", slot=place.slot.label, seconds=now_s - request.since_s)
            return self._lost(place, "hang", hung, now_s)
        if process.phase == "starting" and now_s - process.started_s > START_TIMEOUT_S:
            late = because("segmenter.not-ready", slot=place.slot.label, seconds=START_TIMEOUT_S)
            return self._lost(place, "hang", late, now_s)
        return None

    def _lost(self, place: _Place, kind: Literal["crash", "hang", "refused"], reason: Reason, now_s: float) -> Loss:
        process = place.process
        about = process.request.about if process is not None and process.request is not None else None
        if process is not None:
            process.kill()
        place.process = None
        place.failures += 1
        place.refusal = reason if kind == "refused" else None
        wait_s = (
            0.0
            if place.failures == 1 and kind != "refused"
            else self._retry_s * 2.0 ** min(max(0, place.failures - 2), 10)
        )
        place.not_before_s = now_s + min(wait_s, _LONGEST_WAIT_S)
        ended_s = process.ended_s if process is not None else None
        return Loss(place.slot, kind, reason, about, ended_s if ended_s is not None else now_s)

    def _end(self, sha256: str) -> None:
        place = self._places.pop(sha256)
        if place.process is not None:
            place.process.close()
