"""Progress of long work as a function argument; the CLI shows it, a library call shows nothing by default."""

from __future__ import annotations

from collections.abc import Callable

ProgressFn = Callable[[int, int, str], None]
"""Called with (done, total, note): steps done, steps in total, a short note such as a loss or a file name."""


def silent(done: int, total: int, note: str) -> None:
    """Show nothing.

    Args:
        done: units of work done.
        total: units in total; 0 if unknown.
        note: text beside them.
    """
    del done, total, note
