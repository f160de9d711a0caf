"""Stops a process when its standard input closes, so that it never outlives its parent."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

GRACE_S = 10.0
"""Time for an orderly stop before the process exits."""


def stop_with_parent(stop: threading.Event, *, grace_s: float = GRACE_S, exit_code: int = 70) -> None:
    """Set ``stop`` when standard input closes; the process exits at most ``grace_s`` later.

    Args:
        stop: set when standard input closes.
        grace_s: time for an orderly stop, in seconds.
        exit_code: of a process that does not stop in time.
    """
    fd = sys.stdin.fileno()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(fd, 4096):
                pass
        stop.set()
        threading.Event().wait(grace_s)
        os._exit(exit_code)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def stop_on_signals(stop: threading.Event) -> None:
    """Set ``stop`` on SIGTERM and Ctrl-C (and Ctrl-Break on Windows) instead of exiting at once."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    names = ("SIGTERM", "SIGINT", "SIGBREAK")
    for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
        signal.signal(number, on_signal)
