"""The segmenters of an instrument, one per needed slot: starts, supervises, restarts and ends them."""

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
        about: data of its open request; None: it was idle.
        at_s: monotonic time of its end.
    """

    slot: Slot
    kind: Literal["crash", "hang", "refused"]
    reason: Reason
    about: Any = None
    at_s: float = 0.0


@dataclass
class _Entry:
    slot: Slot
    process: SegmenterWorker | None = None
    held: bool = False
    failures: int = 0
    not_before_s: float = -1e18
    refusal: Reason | None = None
    memory_mb: float = 0.0
    measured_s: float = -1e18


class WorkerPool:
    """Segmenters by the SHA-256 of their slot. Not thread-safe: the owner holds a lock.

    Args:
        command: the program.
        threads: of each; 0: all cores.
        log: folder of their logs.
        frame_timeout_s: a segmenter that takes longer for a request counts as hung.
        retry_s: first wait before a restart, after two consecutive losses.
        clock: monotonic time.
        wake: called after every line of a segmenter, and at its end.
        start: starts the program.

    Attributes:
        restarts: number of segmenters that were started in place of a lost one.
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
        self._entries: dict[str, _Entry] = {}
        self.restarts = 0

    def want(self, slots: Mapping[str, Slot]) -> None:
        """Set the needed slots: ``step`` starts missing segmenters; others are ended when they are idle."""
        for sha256, slot in slots.items():
            self._entries.setdefault(sha256, _Entry(slot)).slot = slot
        for sha256 in [s for s, p in self._entries.items() if s not in slots and not p.held]:
            entry = self._entries[sha256]
            if entry.process is None or entry.process.request is None or entry.process.phase != "ready":
                self._end(sha256)

    def keep(self, slot: Slot) -> SegmenterWorker:
        """Start a segmenter unless there is one, and keep it even if no experiment needs it, until ``let_go``."""
        entry = self._entries.setdefault(slot.sha256, _Entry(slot))
        entry.held = True
        if entry.process is None or entry.process.ended_s is not None:
            entry.slot, entry.refusal = slot, None
            entry.process = self._start(slot)
        return entry.process

    def let_go(self, sha256: str) -> None:
        """Stop keeping a segmenter; it is ended if no experiment needs it."""
        if sha256 in self._entries:
            self._entries[sha256].held = False

    def step(self) -> list[Loss]:
        """Start missing segmenters and kill hung ones. Returns the lost segmenters."""
        now_s = self._clock.monotonic_s()
        losses = []
        for entry in self._entries.values():
            if entry.process is not None and (loss := self._check(entry, entry.process, now_s)) is not None:
                losses.append(loss)
            if entry.process is None and now_s >= entry.not_before_s:
                try:
                    entry.process = self._start(entry.slot)
                    self.restarts += entry.failures > 0
                except DeviceError as e:
                    losses.append(self._lost(entry, "refused", error_reason(e), now_s))
        return losses

    def free(self) -> Iterator[SegmenterWorker]:
        """Segmenters that accept a request now."""
        return (p.process for p in self._entries.values() if p.process is not None and p.process.is_free)

    def answered(self) -> Iterator[SegmenterWorker]:
        """Segmenters whose request was answered."""
        for entry in self._entries.values():
            process = entry.process
            if process is not None and process.request is not None and process.request.answer is not None:
                entry.failures = 0
                yield process

    def find(self, sha256: str) -> SegmenterWorker | None:
        """The segmenter of a slot, in any phase; None: there is none."""
        entry = self._entries.get(sha256)
        return entry.process if entry is not None else None

    def refusal(self, sha256: str) -> Reason | None:
        """Why the segmenter of a slot refused to start; None: it did not."""
        entry = self._entries.get(sha256)
        return entry.refusal if entry is not None else None

    def memory_mb(self) -> dict[str, float]:
        """Memory of every running segmenter, in MB; measured every other second."""
        now_s = self._clock.monotonic_s()
        out = {}
        for sha256, entry in self._entries.items():
            if entry.process is None or entry.process.ended_s is not None:
                continue
            if now_s - entry.measured_s >= _MEMORY_EVERY_S:
                entry.memory_mb, entry.measured_s = entry.process.memory_mb(), now_s
            out[sha256] = round(entry.memory_mb, 1)
        return out

    def pids(self) -> tuple[tuple[str, int], ...]:
        """Slot and process id of all running segmenters."""
        running = ((s, p.process) for s, p in self._entries.items())
        return tuple((s, p.pid) for s, p in running if p is not None and p.ended_s is None)

    def close(self) -> None:
        """Close all segmenters."""
        for sha256 in list(self._entries):
            self._end(sha256)

    def start_separate(self, slot: Slot) -> SegmenterWorker:
        """Start a segmenter outside the pool; the caller ends it."""
        return self._start(slot, "selftest-")

    def _start(self, slot: Slot, prefix: str = "") -> SegmenterWorker:
        log = self._log / f"segmenter-{prefix}{slot.sha256[:8]}.log"
        return SegmenterWorker(
            self._command, slot, self._threads, log, self._clock, wake=self._wake, start=self._start_program
        )

    def _check(self, entry: _Entry, process: SegmenterWorker, now_s: float) -> Loss | None:
        request = process.request
        if process.ended_s is not None:
            if request is not None and request.answer is not None:
                return None  # it answered before it ended: take the answer first
            if process.refusal is not None:
                return self._lost(entry, "refused", process.refusal, now_s)
            return self._lost(entry, "crash", process.why_ended(), now_s)
        if request is not None and request.answer is None and now_s - request.since_s > self._frame_timeout_s:
            hung = because("segmenter.hung", slot=entry.slot.label, seconds=now_s - request.since_s)
            return self._lost(entry, "hang", hung, now_s)
        if process.phase == "starting" and now_s - process.started_s > START_TIMEOUT_S:
            late = because("segmenter.not-ready", slot=entry.slot.label, seconds=START_TIMEOUT_S)
            return self._lost(entry, "hang", late, now_s)
        return None

    def _lost(self, entry: _Entry, kind: Literal["crash", "hang", "refused"], reason: Reason, now_s: float) -> Loss:
        process = entry.process
        about = process.request.about if process is not None and process.request is not None else None
        if process is not None:
            process.kill()
        entry.process = None
        entry.failures += 1
        entry.refusal = reason if kind == "refused" else None
        wait_s = (
            0.0
            if entry.failures == 1 and kind != "refused"
            else self._retry_s * 2.0 ** min(max(0, entry.failures - 2), 10)
        )
        entry.not_before_s = now_s + min(wait_s, _LONGEST_WAIT_S)
        ended_s = process.ended_s if process is not None else None
        return Loss(entry.slot, kind, reason, about, ended_s if ended_s is not None else now_s)

    def _end(self, sha256: str) -> None:
        entry = self._entries.pop(sha256)
        if entry.process is not None:
            entry.process.close()
