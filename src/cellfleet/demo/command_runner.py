"""Runs commands one after the other, step by step: what a step does, the command line, its output, how long it took."""

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
    """A command failed, so the demo cannot go on.

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
        steps: how many there will be.
        seconds: time of every step by its title.
        findings: commands that ended with findings (a failed gate), as they were typed.
    """

    steps: int
    seconds: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    _begun: float = 0.0
    _title: str = ""

    def step(self, title: str, text: str) -> None:
        """Begin a step.

        Args:
            title: of the step.
            text: what it does.
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
            may_find: exit code 1 is noted, and the demo goes on.

        Raises:
            CommandFailed: it failed.
        """
        from cellfleet.cli.main import run

        self._show(argv)
        return self._judge(run(list(argv)), argv, may_find)

    def must_end(self, expected: ExitCode, *argv: str) -> None:
        """Run a command that must not succeed.

        Args:
            expected: the exit code that it must have.
            argv: the command and its arguments.

        Raises:
            CommandFailed: it ended otherwise.
        """
        from cellfleet.cli.main import run

        self._show(argv)
        code = run(list(argv))
        if code != expected:
            raise CommandFailed(code or int(ExitCode.INTERNAL))

    def ask(self, *argv: str, stdin: str = "") -> Any:
        """Run a command with ``--json`` and return the facts; nothing but the command line is shown.

        Args:
            argv: the command and its arguments.
            stdin: what it reads.

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
        self._judge(code, argv, False)
        return json.loads(out.getvalue())

    def run_without_torch(self, *argv: str) -> int:
        """Run a command in a process of its own that cannot import torch.

        Raises:
            CommandFailed: it failed.
        """
        self._show(argv)
        sys.stdout.flush()
        done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *argv], check=False)
        return self._judge(done.returncode, argv, False)

    def _show(self, argv: Sequence[str]) -> None:
        out_console().print(f"$ cellfleet {shlex.join(argv)}", style="dim", markup=False)

    def _judge(self, code: int, argv: Sequence[str], may_find: bool) -> int:
        if code == ExitCode.FINDINGS and may_find:
            self.findings.append(f"cellfleet {shlex.join(argv)}")
        elif code != ExitCode.OK:
            raise CommandFailed(code if code > 0 else int(ExitCode.INTERRUPTED))
        return code
