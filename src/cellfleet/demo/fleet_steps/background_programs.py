"""Background programs of the demo: started with a log, watched, and always ended with the demo.

Each program ends when its standard input closes, so that none is left even when this process is killed.
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
        name: name in messages and of the log.
        process: the process.
        log: file with its output.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Check that the program runs.

        Raises:
            DeviceError: it ended; the message holds its last lines.
        """
        code = self.process.poll()
        if code is not None:
            raise DeviceError(f"{self.name} ended with exit code {code}: {self.last_lines()}", hint=f"read {self.log}")

    def last_lines(self) -> str:
        """The last lines of its log, joined into one line."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return " | ".join(line.strip().removeprefix("error: ") for line in lines[-_LAST_LINES:])
        return ""

    def request_end(self) -> None:
        """Close its input and send SIGTERM; return at once."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Wait until it ends; kill it after ``timeout_s`` seconds."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Programs:
    """The running programs of the demo; a context manager that ends all of them.

    Args:
        logs: folder of the logs.
        environ: additional environment variables of the programs.
    """

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        self._logs, self._environ = logs, dict(environ)
        self._running: list[Program] = []

    def start(self, name: str, argv: Sequence[str]) -> Program:
        """Start a command.

        Args:
            name: name in messages and of the log.
            argv: arguments of ``cellfleet``.

        Returns:
            The running program.
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
                start_new_session=True,  # Ctrl-C reaches only the demo, which ends the programs in order
            )
        program = Program(name, process, log)
        self._running.append(program)
        return program

    def check(self) -> None:
        """Check that all programs run; raises as ``Program.check``."""
        for program in self._running:
            program.check()

    def end(self) -> None:
        """End all programs in reverse order. A second Ctrl-C kills them; their children end with their input."""
        running, self._running = self._running, []
        if running:
            say("ending the instruments and the server")
        try:
            for program in reversed(running):
                program.request_end()
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
