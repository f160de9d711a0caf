"""CPU time of a test run: of this process, its children, and the workers of xdist with theirs."""

from __future__ import annotations

import os
from typing import Any, Protocol

import pytest

CPU_S = "cpu_s"


class _Worker(Protocol):
    """A worker of xdist, as its controller sees it."""

    workeroutput: dict[str, Any]


class CpuTime:
    """Takes the workers' times, and prints one line at the end."""

    def __init__(self) -> None:
        self.workers_s = 0.0

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker hands its time to the controller."""
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[CPU_S] = sum(used_s())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: _Worker) -> None:
        """The controller takes it."""
        self.workers_s += float(getattr(node, "workeroutput", {}).get(CPU_S, 0.0))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print it. Workers that the controller has waited for are among its children already."""
        own_s, children_s = used_s()
        total_s = own_s + max(children_s, self.workers_s)
        terminalreporter.write_line(f"CPU time of the tests: {total_s:,.0f} s (user and system, children included)")


def used_s() -> tuple[float, float]:
    """User and system time of this process, and of its children that have ended and were waited for; seconds."""
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system
