"""The agent process: ``python -m cellfleet.device.update.process HOME``. The launcher starts it; it stops when stdin closes."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from pathlib import Path

from cellfleet.config import Project
from cellfleet.device.system.file_lock import held
from cellfleet.device.system.home import Home
from cellfleet.device.system.parent_watchdog import stop_on_signals, stop_with_parent
from cellfleet.device.update.agent_factory import composed
from cellfleet.device.update.background_task import ThreadedTask
from cellfleet.device.update.transitions import ActionResult
from cellfleet.errors import CellfleetError
from cellfleet.ports import Clock, SystemClock

_LOCK_WAIT_S = 20.0
_SYNC_S = 0.5
REFUSED = 3


def run_agent(home: Home, project: Project, stop: threading.Event, clock: Clock) -> None:
    """Run the agent until ``stop`` is set.

    Args:
        home: HOME of this instrument.
        project: its settings.
        stop: stops the loop.
        clock: time.

    Raises:
        CellfleetError: the agent cannot start.
    """
    background: ThreadedTask[ActionResult] = ThreadedTask()
    with composed(home, project, clock, background, news) as parts:
        sync = threading.Thread(target=parts.server_sync.run, args=(_SYNC_S,), name="server-sync", daemon=True)
        parts.agent.start()
        news(f"the agent is running: {parts.agent.state}")
        sync.start()
        try:
            while not stop.is_set():
                parts.agent.tick()
                parts.reporter.report(clock.now())
                stop.wait(project.settings.agent.tick_s)
        finally:
            parts.server_sync.stop()


def news(text: str) -> None:
    """Write one line to stdout; the launcher prints it."""
    with contextlib.suppress(OSError):  # the launcher has ended, so this process stops soon
        sys.stdout.write(text.replace("\n", " ") + "\n")
        sys.stdout.flush()


def main(argv: list[str]) -> int:
    """Run the process. Returns its exit code."""
    stop = threading.Event()
    stop_with_parent(stop)
    stop_on_signals(stop)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    home = Home.at(Path(argv[0]))
    try:
        project = home.project()
        with held(home.agent_lock, "the agent", _LOCK_WAIT_S):
            run_agent(home, project, stop, SystemClock())
    except CellfleetError as e:
        news(f"the agent stops: {e.message}" + (f" ({e.hint})" if e.hint else ""))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
