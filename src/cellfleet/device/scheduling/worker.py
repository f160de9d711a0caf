"""One segmenter: a child process that speaks the protocol of docs/fleet.md, one request at a time."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from cellfleet.device.interfaces import Slot
from cellfleet.errors import DeviceError
from cellfleet.ports import Clock, make_dir
from cellfleet.wire.plain import words
from cellfleet.wire.reason import Reason, because

_LOG = logging.getLogger(__name__)
_LOG_BYTES = 4 << 20

Phase = Literal["starting", "ready", "refused", "ended"]
Answer = dict[str, Any]


@dataclass
class Ready:
    """What a segmenter said of itself."""

    variant: str = ""
    run_digest: str = ""
    engine: str = ""
    memory_mb: float = 0.0


@dataclass
class Request:
    """A request that is under way.

    Attributes:
        number: its id.
        since_s: monotonic time at which it was sent.
        about: what the caller wants to remember with it.
    """

    number: int
    since_s: float
    about: Any = None
    answer: Answer | None = field(default=None)


def command_of(software: str) -> list[str]:
    """The segmenter program of a setting; empty: cellfleet's own."""
    return shlex.split(software) if software else [sys.executable, "-m", "cellfleet.device.segmenter.main"]


class SegmenterWorker:
    """A segmenter. Its output is read by a thread; everything else is asked of it without waiting.

    Args:
        command: the program.
        slot: whose bundle it draws with.
        threads: CPU threads; 0: all.
        log_file: its standard error is appended there.
        wake: called by the reading thread whenever something happened.

    Attributes:
        started_s, ready_s: monotonic times; ready_s is None until then.
        ready: facts, once it is ready.
        refusal: why it refused to start.
    """

    def __init__(
        self,
        command: Sequence[str],
        slot: Slot,
        threads: int,
        log_file: Path,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.slot, self._clock, self._wake = slot, clock, wake
        self.started_s = clock.monotonic_s()
        self.ready_s: float | None = None
        self.ended_s: float | None = None
        self.ready = Ready()
        self.refusal: Reason | None = None
        self.request: Request | None = None
        self._number = 0
        self._happened = threading.Event()
        argv = [*command, "--bundle", str(slot.bundle)]
        argv += ["--variant", slot.variant] if slot.variant else []
        argv += ["--threads", str(threads)] if threads else []
        log = _open_log(log_file)
        env = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        try:
            self._child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env)
        except OSError as e:
            raise DeviceError(
                f"the segmenter {argv[0]} cannot be started: {e.strerror}", hint="check device.software in the settings"
            ) from e
        finally:
            log.close()
        self._log_file = log_file
        self._reader = threading.Thread(target=self._read, name=f"segmenter-{slot.sha256[:8]}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    @property
    def phase(self) -> Phase:
        """Where it is in its life."""
        if self.ended_s is not None:
            return "refused" if self.refusal else "ended"
        return "ready" if self.ready_s is not None else "starting"

    @property
    def is_free(self) -> bool:
        """It takes a request now."""
        return self.phase == "ready" and self.request is None

    def ask(self, what: str, about: Any = None, **fields: Any) -> None:
        """Send a request; the answer is found in ``request.answer`` later."""
        self._number += 1
        self.request = Request(self._number, self._clock.monotonic_s(), about)
        line = json.dumps({"id": self._number, "do": what, **fields}).encode() + b"\n"
        with contextlib.suppress(OSError, ValueError):  # it has ended: the reader says so
            assert self._child.stdin is not None
            self._child.stdin.write(line)
            self._child.stdin.flush()

    def take_answer(self) -> Request | None:
        """The request that was answered, once."""
        request = self.request
        if request is None or request.answer is None:
            return None
        self.request = None
        return request

    def wait(self, timeout_s: float, until: Callable[[SegmenterWorker], bool]) -> bool:
        """Wait until something is true of it, or it has ended; False when the time is over."""
        deadline = self._clock.monotonic_s() + timeout_s
        while not until(self) and self.ended_s is None:
            left = deadline - self._clock.monotonic_s()
            if left <= 0:
                return False
            self._happened.wait(min(left, 0.5))
            self._happened.clear()
        return until(self)

    def memory_mb(self) -> float:
        """Resident memory now; 0 when it cannot be asked."""
        import psutil

        try:
            return float(psutil.Process(self.pid).memory_info().rss) / 1e6
        except psutil.Error:
            return 0.0

    def why_ended(self) -> Reason:
        """Exit code or signal, and the last line of its output."""
        code = self._child.poll()
        output = _last_line(self._log_file) or "none"
        if code is not None and code < 0:
            return because("segmenter.signal", slot=self.slot.label, signal=-code, output=output)
        return because("segmenter.exit", slot=self.slot.label, exit_code=str(code), output=output)

    def kill(self) -> None:
        """End it by force."""
        with contextlib.suppress(OSError):
            self._child.kill()
        self._reap()

    def close(self, grace_s: float = 2.0) -> None:
        """End it: the end of its input, then by force."""
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
                self._tell()
        with contextlib.suppress(OSError):
            self._child.wait()
        self.ended_s = self._clock.monotonic_s()
        self._tell()

    def _take(self, line: bytes) -> None:
        try:
            said: dict[str, Any] = {k: words(v) if isinstance(v, str) else v for k, v in dict(json.loads(line)).items()}
            event = said["event"]
        except (ValueError, KeyError, TypeError, RecursionError):
            _LOG.warning("%s: a line that is not of the protocol: %.200r", self.slot.label, line)
            return
        said["memory_mb"] = _megabytes(said.get("memory_mb"))
        if event == "ready":
            self.ready = Ready(
                str(said.get("variant", "")),
                str(said.get("run_digest", "")),
                f"{said.get('engine', '')} {said.get('engine_version', '')}".strip(),
                said["memory_mb"],
            )
            self.ready_s = self._clock.monotonic_s()
        elif event == "refused":
            detail = f"{said.get('message', '')} {said.get('hint', '')}".strip()
            self.refusal = because("segmenter.refused", detail=detail or "no reason")
        elif self.request is not None and said.get("id") == self.request.number:
            self.request.answer = said

    def _tell(self) -> None:
        self._happened.set()
        self._wake()


def _megabytes(said: Any) -> float:
    """What a program says of its memory; 0 for what is no number."""
    return float(said) if isinstance(said, int | float) and 0 <= said < 1e9 else 0.0


def _open_log(path: Path) -> IO[bytes]:
    make_dir(path.parent)
    with contextlib.suppress(OSError):
        if path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    try:
        return path.open("ab")
    except OSError as e:
        raise DeviceError(f"{path} cannot be written: {e.strerror}", hint="check the disk of this instrument") from e


def _last_line(path: Path) -> str:
    """The last line of a log, when it is short enough to be a reason."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - 2000))
            lines = f.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return words(lines[-1][-300:]) if lines else ""
