"""``device run``: starts the camera and the agent, watches and restarts them, and stops both.

Each child's standard input is a pipe from this process: it closes when this process ends for any reason. A child writes
progress messages to standard output, which are printed and logged, and its log to standard error.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from cellfleet.canonical import canonical_bytes
from cellfleet.device.system.file_lock import held
from cellfleet.device.system.home import Home
from cellfleet.device.system.parent_watchdog import GRACE_S
from cellfleet.device.system.retry import backoff_s
from cellfleet.device.system.rotating_log import RotatingLog
from cellfleet.errors import StorageError
from cellfleet.ports import Clock, write_atomic

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "camera": ("-m", "cellfleet.device.camera.process"),
    "agent": ("-m", "cellfleet.device.update.process"),
}
_FIRST_WAIT_S = 1.0
_MAX_WAIT_S = 60.0
_HEALTHY_S = 60.0
_LOCK_WAIT_S = 2.0
PrintLine = Callable[[str, str], None]


@dataclass
class Child:
    """A supervised process.

    Attributes:
        failures: consecutive ends, each soon after a start.
        due_s: monotonic time of the next start.
    """

    name: str
    argv: Sequence[str]
    log: RotatingLog
    process: subprocess.Popen[bytes] | None = None
    threads: list[threading.Thread] = field(default_factory=list)
    started_s: float = 0.0
    failures: int = 0
    due_s: float = 0.0


class Launcher:
    """The processes of one instrument.

    Args:
        print_line: takes the name of a process and one line of text.
        programs: name -> arguments of the interpreter; HOME is added.
        grace_s: time for an orderly stop before a process is killed.
    """

    def __init__(
        self,
        home: Home,
        clock: Clock,
        print_line: PrintLine,
        *,
        programs: Mapping[str, Sequence[str]] = PROGRAMS,
        grace_s: float = GRACE_S,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        self._home, self._clock, self._print_line = home, clock, print_line
        self._grace_s, self._first_wait_s = grace_s, first_wait_s
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._children = {
            name: Child(name, (sys.executable, *args, str(home.root)), RotatingLog(home.log / f"{name}.log"))
            for name, args in programs.items()
        }
        self._stopping = False

    def run(self) -> None:
        """Start the children and watch them until ``stop``.

        Raises:
            DeviceError: this instrument is running already.
        """
        with held(self._home.run_lock, "`cellfleet device run`", _LOCK_WAIT_S):
            try:
                while not self._stopping:
                    self._start_due()
                    self._wait_for_event()
            finally:
                self._end_all()

    def stop(self) -> None:
        """Stop ``run``; safe in signal handlers and other threads."""
        self._stopping = True
        self._ended.put("")

    def _start_due(self) -> None:
        now = self._clock.monotonic_s()
        for child in self._children.values():
            if child.process is None and now >= child.due_s:
                self._start(child)

    def _wait_for_event(self) -> None:
        """Sleep until a child ends, ``stop`` is called, or a restart is due."""
        dues = [c.due_s for c in self._children.values() if c.process is None]
        max_s = 0.5 if sys.platform == "win32" else 3600.0  # on Windows a long wait blocks Ctrl-C
        wait_s = min(max_s, max(0.01, min(dues) - self._clock.monotonic_s())) if dues else max_s
        with contextlib.suppress(queue.Empty):
            name = self._ended.get(timeout=wait_s)
            if name:
                self._note_end(self._children[name])

    def _start(self, child: Child) -> None:
        flags = int(getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0))  # Windows
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        child.started_s = self._clock.monotonic_s()
        try:
            child.process = subprocess.Popen(
                child.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=sys.platform != "win32",
                creationflags=flags,
            )
        except OSError as e:
            self._schedule_restart(child, f"cannot start: {e}")
            return
        assert child.process.stdout is not None
        assert child.process.stderr is not None
        child.threads = [
            _thread(self._pump, child, child.process.stdout, True),
            _thread(self._pump, child, child.process.stderr, False),
        ]
        _thread(self._watch, child.name, child.process)
        self._note_children()

    def _pump(self, child: Child, stream: IO[bytes], is_progress: bool) -> None:
        with stream:
            for line in stream:
                text = line.decode("utf-8", "replace").rstrip()
                child.log.write(text)
                if is_progress and text:
                    self._print_line(child.name, text)

    def _watch(self, name: str, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._ended.put(name)

    def _note_end(self, child: Child) -> None:
        process, child.process = child.process, None
        if process is None or self._stopping:
            child.process = process
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        self._schedule_restart(child, f"ended {_exit_description(process.returncode)}")

    def _schedule_restart(self, child: Child, why: str) -> None:
        now = self._clock.monotonic_s()
        child.failures = 1 if now - child.started_s >= _HEALTHY_S else child.failures + 1
        wait_s = min(_MAX_WAIT_S, backoff_s(child.failures, self._first_wait_s, 0.5))
        child.due_s = now + wait_s
        self._print_line(child.name, f"{why}; restart in {wait_s:.0f} s")
        child.log.write(why)

    def _end_all(self) -> None:
        """Close the input of all children, wait, then kill those that are left."""
        running = [(c, c.process) for c in self._children.values() if c.process is not None]
        for _, process in running:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        deadline = self._clock.monotonic_s() + self._grace_s
        for child, process in running:
            try:
                process.wait(max(0.0, deadline - self._clock.monotonic_s()))
            except subprocess.TimeoutExpired:
                self._print_line(child.name, "did not stop in time; it is killed")
                process.kill()
                process.wait()
            for thread in child.threads:
                thread.join(1.0)  # a grandchild may hold the pipe for a moment
            child.process = None
        for child in self._children.values():
            child.log.close()
        self._home.children_file.unlink(missing_ok=True)

    def _note_children(self) -> None:
        pids = {c.name: c.process.pid for c in self._children.values() if c.process is not None}
        with contextlib.suppress(StorageError):
            write_atomic(
                self._home.children_file, canonical_bytes({"format_version": 1, **pids, "launcher": os.getpid()})
            )


def _thread(target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def _exit_description(code: int) -> str:
    if code < 0:
        return f"by signal {-code}"
    return "with exit code 0" if code == 0 else f"with exit code {code}"
