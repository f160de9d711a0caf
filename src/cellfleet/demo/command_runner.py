"""Run commands step by step; print what a step does, its command lines and output, and measure its time."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cellfleet.cli.common import out_console
from cellfleet.cli.exit_codes import ExitCode

WITHOUT_TORCH = """\
import sys
sys.modules["torch"] = None  # from now on `import torch` is an ImportError
from cellfleet.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


class CommandFailed(Exception):
    """A command failed; the demo stops.

    Attributes:
        code: the command's exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class CommandRunner:
    """Prints numbered steps and runs the commands of each.

    Attributes:
        steps: number of steps.
        seconds: duration of each step by its title.
        findings: command lines that ended with findings (a failed gate).
    """

    steps: int
    seconds: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    _begun: float = 0.0
    _title: str = ""

    def step(self, title: str, text: str) -> None:
        """Begin a step.

        Args:
            title: title of the step.
            text: what the step does.
        """
        self.close()
        self._title, self._begun = title, time.monotonic()
        console = out_console()
        console.print()
        console.print(f"{len(self.seconds) + 1}/{self.steps}  {title}", style="bold cyan", markup=False)
        console.print(text, markup=False)

    def close(self) -> None:
        """End the step."""
        if self._title:
            self.seconds[self._title] = round(time.monotonic() - self._begun, 1)
            self._title = ""

    def run(self, *argv: str, may_find: bool = False) -> int:
        """Run a command in this process.

        Args:
            argv: the command and its arguments.
            may_find: record exit code 1 as a finding and continue.

        Raises:
            CommandFailed: it failed.
        """
        from cellfleet.cli.main import run

        self._show(argv)
        return self._check_exit_code(run(list(argv)), argv, may_find)

    def must_end(self, expected: ExitCode, *argv: str) -> None:
        """Run a command that must end with an exit code.

        Args:
            expected: the required exit code.
            argv: the command and its arguments.

        Raises:
            CommandFailed: the exit code differs.
        """
        from cellfleet.cli.main import run

        self._show(argv)
        code = run(list(argv))
        if code != expected:
            raise CommandFailed(code or int(ExitCode.INTERNAL))

    def ask(self, *argv: str, stdin: str = "") -> Any:
        """Run a command with ``--json`` and return its facts; print only the command line.

        Args:
            argv: the command and its arguments.
            stdin: its standard input.

        Raises:
            CommandFailed: it failed.
        """
        from cellfleet.cli.main import run

        self._show(argv)
        out, before = io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(stdin)
        try:
            with contextlib.redirect_stdout(out):
                code = run([*argv, "--json"])
        finally:
            sys.stdin = before
        self._check_exit_code(code, argv, False)
        return json.loads(out.getvalue())

    def run_without_torch(self, *argv: str) -> int:
        """Run a command in a separate process that cannot import torch.

        Raises:
            CommandFailed: it failed.
        """
        self._show(argv)
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *argv], check=False)
        return self._check_exit_code(done.returncode, argv, False)

    def _show(self, argv: Sequence[str]) -> None:
        out_console().print(f"$ cellfleet {shlex.join(argv)}", style="dim", markup=False)

    def _check_exit_code(self, code: int, argv: Sequence[str], may_find: bool) -> int:
        if code == ExitCode.FINDINGS and may_find:
            self.findings.append(f"cellfleet {shlex.join(argv)}")
        elif code != ExitCode.OK:
            raise CommandFailed(code if code > 0 else int(ExitCode.INTERRUPTED))
        return code
