"""Programs that run beside the demo: started with a log, watched, and ended with the demo, however it ends.

Each ends when its standard input closes, so that none stays behind even when this process is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cellfleet.cli.common import say
from cellfleet.errors import DeviceError
from cellfleet.ports import make_dir

_PROGRAM = "from cellfleet.cli.entry import main; main()"
_TIMEOUT_S = 30.0
_LAST_LINES = 8


@dataclass
class Program:
    """One ``cellfleet`` command that runs in the background.

    Attributes:
        name: for people, and of its log.
        process: of the system.
        log: what it prints.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Check that it still runs.

        Raises:
            DeviceError: it ended; with the last lines that it printed.
        """
        code = self.process.poll()
        if code is not None:
            raise DeviceError(f"{self.name} ended with exit code {code}: {self.last_lines()}", hint=f"read {self.log}")

    def last_lines(self) -> str:
        """The end of its log, in one line."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return " | ".join(line.strip().removeprefix("error: ") for line in lines[-_LAST_LINES:])
        return ""

    def ask_to_end(self) -> None:
        """Ask it to end; returns at once."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Wait for its end; kill it after ``timeout_s``."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Programs:
    """The running programs of the demo; a context manager at whose end all of them have ended.

    Args:
        logs: folder for their logs.
        environ: variables that they get besides those of this process.
    """

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        self._logs, self._environ = logs, dict(environ)
        self._running: list[Program] = []

    def start(self, name: str, argv: Sequence[str]) -> Program:
        """Start a command.

        Args:
            name: for people, and of the log.
            argv: arguments of ``cellfleet``.

        Returns:
            The program, running.
        """
        make_dir(self._logs)
        log = self._logs / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *argv],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environ},
                start_new_session=True,  # Ctrl-C reaches the demo, which ends them in order
            )
        program = Program(name, process, log)
        self._running.append(program)
        return program

    def check(self) -> None:
        """Check that all of them still run; errors as of ``Program.check``."""
        for program in self._running:
            program.check()

    def end(self) -> None:
        """End them all, in reverse order. Another Ctrl-C kills them; what they started ends with their input."""
        running, self._running = self._running, []
        if running:
            say("ending the instruments and the server")
        try:
            for program in reversed(running):
                program.ask_to_end()
            for program in reversed(running):
                program.wait()
        except BaseException:
            for program in running:
                program.process.kill()
            raise

    def __enter__(self) -> Programs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
