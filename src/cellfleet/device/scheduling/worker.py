"""A segmenter: a child process with the protocol of docs/fleet.md, one request at a time."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cellfleet.device.interfaces import Slot
from cellfleet.device.scheduling.segmenter_command import StartProgram, arguments_of, last_line, start_process
from cellfleet.errors import WireError
from cellfleet.ports import Clock
from cellfleet.wire.features import NONE
from cellfleet.wire.reason import Reason, because
from cellfleet.wire.segmenter import Answer, Ready, Request, read_answer, read_first_line, read_object

_LOG = logging.getLogger(__name__)

Phase = Literal["starting", "ready", "refused", "ended"]
_FIRST_LINES = ("ready", "refused")
NOT_READY = Ready(protocol=1, run_digest="", variant="")


@dataclass(frozen=True)
class NotUnderstood:
    """An answer that violates the protocol, and its first error."""

    detail: str
    memory_mb: float = 0.0


@dataclass
class OpenRequest:
    """A request that was sent.

    Attributes:
        request: as it was sent.
        since_s: monotonic time at which it was sent.
        about: data of the caller.
        answer: None until it arrives.
    """

    request: Request
    since_s: float
    about: Any = None
    answer: Answer | NotUnderstood | None = field(default=None)


class SegmenterWorker:
    """A segmenter. A thread reads its output; every method but ``wait`` and ``close`` returns at once.

    Args:
        command: the program.
        slot: whose bundle it uses.
        threads: CPU threads; 0: all.
        log_file: its standard error is appended here.
        clock: monotonic time.
        wake: called by the reading thread after every line and at the end.
        start: starts the program.

    Attributes:
        started_s, ready_s, ended_s: monotonic times; None until then.
        ready: its first line, once it is ready.
        refusal: why it refused to start; None: it did not.
        request: the open request, or the one whose answer was not taken yet.
    """

    def __init__(
        self,
        command: Sequence[str],
        slot: Slot,
        threads: int,
        log_file: Path,
        clock: Clock,
        *,
        wake: Callable[[], None] = lambda: None,
        start: StartProgram = start_process,
    ) -> None:
        self.slot, self._clock, self._wake, self._log_file = slot, clock, wake, log_file
        self.started_s = clock.monotonic_s()
        self.ready_s: float | None = None
        self.ended_s: float | None = None
        self.ready = NOT_READY
        self.refusal: Reason | None = None
        self.request: OpenRequest | None = None
        self._number = 0
        self._happened = threading.Event()
        self._child = start([*command, *arguments_of(slot, threads)], threads, log_file)
        self._reader = threading.Thread(target=self._read, name=f"segmenter-{slot.sha256[:8]}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    @property
    def phase(self) -> Phase:
        """Its phase now."""
        if self.ended_s is not None:
            return "refused" if self.refusal else "ended"
        return "ready" if self.ready_s is not None else "starting"

    @property
    def is_free(self) -> bool:
        """Whether it accepts a request now."""
        return self.phase == "ready" and self.request is None

    def ask(self, request: Request, about: Any = None) -> None:
        """Send a request; its answer will be in ``request.answer``.

        Args:
            request: its id is set here.
            about: data of the caller.
        """
        self._number += 1
        sent = request.model_copy(update={"id": self._number})
        self.request = OpenRequest(sent, self._clock.monotonic_s(), about)
        with contextlib.suppress(OSError, ValueError):  # it has ended: the reader reports that
            assert self._child.stdin is not None
            self._child.stdin.write(sent.to_json(NONE) + b"\n")
            self._child.stdin.flush()

    def take_answer(self) -> OpenRequest | None:
        """The answered request, once; None: there is no answer yet."""
        request = self.request
        if request is None or request.answer is None:
            return None
        self.request = None
        return request

    def wait(self, timeout_s: float, until: Callable[[SegmenterWorker], bool]) -> bool:
        """Wait until a condition is true, or the segmenter has ended.

        Args:
            timeout_s: longest wait.
            until: the condition.

        Returns:
            Whether the condition is true.
        """
        deadline = self._clock.monotonic_s() + timeout_s
        while not until(self) and self.ended_s is None:
            left = deadline - self._clock.monotonic_s()
            if left <= 0:
                return False
            self._happened.wait(min(left, 0.5))
            self._happened.clear()
        return until(self)

    def memory_mb(self) -> float:
        """Resident memory now, in MB; 0: unknown."""
        import psutil

        try:
            return float(psutil.Process(self.pid).memory_info().rss) / 1e6
        except psutil.Error:
            return 0.0

    def why_ended(self) -> Reason:
        """Exit code or signal, and the last line of its output."""
        code = self._child.poll()
        output = last_line(self._log_file) or "none"
        if code is not None and code < 0:
            return because("segmenter.signal", slot=self.slot.label, signal=-code, output=output)
        return because("segmenter.exit", slot=self.slot.label, exit_code=str(code), output=output)

    def kill(self) -> None:
        """Kill it."""
        with contextlib.suppress(OSError):
            self._child.kill()
        self._reap()

    def close(self, grace_s: float = 2.0) -> None:
        """Close its input, wait, then kill it if needed."""
        with contextlib.suppress(OSError):
            assert self._child.stdin is not None
            self._child.stdin.close()
        try:
            self._child.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._reap()

    def _reap(self) -> None:
        self._child.wait()
        self._reader.join(5.0)
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _read(self) -> None:
        assert self._child.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._child.stdout:
                self._take(line)
                self._notify()
        with contextlib.suppress(OSError):
            self._child.wait()
        self.ended_s = self._clock.monotonic_s()
        self._notify()

    def _take(self, line: bytes) -> None:
        try:
            data = read_object(line)
        except WireError:
            data = {}
        if "event" not in data:
            _LOG.warning("%s: a line is not of the protocol: %.200r", self.slot.label, line)
        elif data["event"] in _FIRST_LINES:
            self._take_first(data)
        elif self.request is not None and data.get("id") == self.request.request.id:
            try:
                self.request.answer = read_answer(data)
            except WireError as e:
                self.request.answer = NotUnderstood(e.message)

    def _take_first(self, data: dict[str, Any]) -> None:
        try:
            first = read_first_line(data)
        except WireError as e:
            self.refusal = because("segmenter.refused", detail=f"its first line is not understood: {e.message}")
            self._child.kill()
            return
        if isinstance(first, Ready):
            self.ready, self.ready_s = first, self._clock.monotonic_s()
        else:
            detail = f"{first.message} {first.hint}".strip()
            self.refusal = because("segmenter.refused", detail=detail or "no reason")

    def _notify(self) -> None:
        self._happened.set()
        self._wake()
