"""The stack on which this thread handles signals, kept as it was while a library loads.

OpenVINO gives the thread that compiles a network a signal stack of its own and takes it away with the network. With several
networks the thread is left with one that is gone, and the next signal (Ctrl-C, SIGTERM) ends the process with SIGSEGV.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread the signal stack back that it had before; does nothing elsewhere than on Linux."""
    library = _c_library()
    if library is None:
        yield
        return
    before = _SignalStack()
    known = library.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            library.sigaltstack(ctypes.byref(before), None)


def signal_stack() -> int | None:
    """Address of this thread's signal stack; None when it has none, or where that is unknown."""
    library, now = _c_library(), _SignalStack()
    if library is None or library.sigaltstack(None, ctypes.byref(now)) != 0:
        return None
    address: int | None = now.sp
    return address


def _c_library() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
