"""The one way in which tests wait for other processes and threads: until something is true, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil

PATIENCE_S = 240.0
"""Longer than anything takes on a machine with ten times its load; a test that waits so long has failed."""
T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    what: str | Callable[[], object] = "",
    *,
    alive: Callable[[], object] = lambda: True,
    every_s: float = 0.02,
) -> T:
    """Poll until a condition is true.

    Args:
        condition: what is waited for.
        what: for the message; a function is called when the patience is over.
        alive: becomes false when nothing more can come, such as after the end of a process.
        every_s: pause between two polls.

    Returns:
        What the condition returned.

    Raises:
        AssertionError: not alive any more, or not true within ``PATIENCE_S``.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        living = alive()
        if found := condition():
            return found
        if not living or time.monotonic() > end:
            text = what() if callable(what) else what
            raise AssertionError(f"{text}: {f'not within {PATIENCE_S:.0f} s' if living else 'it cannot come any more'}")
        time.sleep(every_s)


def wait_for_end(processes: Iterable[psutil.Process]) -> None:
    """Wait until every process has ended (or is a zombie, whose parent has not asked for it)."""
    left = list(processes)

    def running() -> list[psutil.Process]:
        return [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def none_left() -> bool:
        try:
            return not running()
        except psutil.NoSuchProcess:
            return False  # between the two questions; asked again

    wait_until(none_left, lambda: f"these still run: {running()}")
