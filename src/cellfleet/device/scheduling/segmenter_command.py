"""Starts a segmenter program and reads its log."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

from cellfleet.device.interfaces import Slot
from cellfleet.errors import DeviceError
from cellfleet.ports import make_dir
from cellfleet.wire.plain_json import words

_LOG_BYTES = 4 << 20


class RunningProgram(Protocol):
    """A running program; ``subprocess.Popen`` is one."""

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    @property
    def stdin(self) -> IO[bytes] | None:
        """Standard input."""
        ...

    @property
    def stdout(self) -> IO[bytes] | None:
        """Standard output."""
        ...

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; raises ``subprocess.TimeoutExpired``."""
        ...

    def kill(self) -> None:
        """Kill it."""
        ...


StartProgram = Callable[[Sequence[str], int, Path], RunningProgram]
"""Starts a program: arguments, CPU threads (0: all), log file. Raises DeviceError."""


def command_of(software: str) -> list[str]:
    """The segmenter program in the settings; empty: that of cellfleet."""
    return shlex.split(software) if software else [sys.executable, "-m", "cellfleet.device.segmenter.main"]


def arguments_of(slot: Slot, threads: int) -> list[str]:
    """Arguments of a segmenter program.

    Args:
        slot: whose bundle and variant it uses.
        threads: CPU threads; 0: all.
    """
    out = ["--bundle", str(slot.bundle)]
    out += ["--variant", slot.variant] if slot.variant else []
    return [*out, "--threads", str(threads)] if threads else out


def start_process(argv: Sequence[str], threads: int, log_file: Path) -> subprocess.Popen[bytes]:
    """Start a program as a child process; its standard error is appended to the log.

    Args:
        argv: the program and its arguments.
        threads: of OpenMP; 0: as in the environment.
        log_file: created with its folder; renamed at 4 MB.

    Raises:
        DeviceError: the program is missing, or the log cannot be written.
    """
    log = _open_log(log_file)
    env = dict(os.environ) | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    try:
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env)
    except OSError as e:
        raise DeviceError(
            f"the segmenter {argv[0]} cannot be started: {e.strerror}", hint="check device.software in the settings"
        ) from e
    finally:
        log.close()


def last_line(path: Path) -> str:
    """The last line of a log, at most 300 characters; empty when there is none."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - 2000))
            lines = f.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return words(lines[-1][-300:]) if lines else ""


def _open_log(path: Path) -> IO[bytes]:
    make_dir(path.parent)
    with contextlib.suppress(OSError):
        if path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    try:
        return path.open("ab")
    except OSError as e:
        raise DeviceError(f"{path} cannot be written: {e.strerror}", hint="check the disk of this instrument") from e
