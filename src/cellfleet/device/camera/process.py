"""The camera process: ``python -m cellfleet.device.camera.process HOME``. Stops when its standard input closes.

Standard output: progress messages, one line each. Standard error: the log. Exit code 3: invalid settings.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

from cellfleet.config import Project
from cellfleet.device.camera.acquisition import Camera
from cellfleet.device.camera.heartbeat import BEAT_S, CameraState, write_camera
from cellfleet.device.camera.replay import Replay
from cellfleet.device.camera.source import CameraSource
from cellfleet.device.camera.watch_folder import Watched
from cellfleet.device.system.file_lock import held
from cellfleet.device.system.home import Home
from cellfleet.device.system.parent_watchdog import stop_on_signals, stop_with_parent
from cellfleet.errors import CellfleetError, ConfigError, StorageError
from cellfleet.ports import Clock, SystemClock
from cellfleet.wire.reason import Reason

_LOG = logging.getLogger(__name__)
WRONG_SETTING = 3
_LOCK_WAIT_S = 15.0


def main(argv: list[str] | None = None) -> int:
    """Run the camera of an instrument. Returns the exit code."""
    args = sys.argv[1:] if argv is None else argv
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if len(args) != 1:
        sys.stderr.write("usage: python -m cellfleet.device.camera.process HOME\n")
        return WRONG_SETTING
    stop = threading.Event()
    stop_with_parent(stop)
    stop_on_signals(stop)
    home = Home.at(Path(args[0]))
    try:
        project = home.project()
        with held(home.state / "camera.lock", "the camera", _LOCK_WAIT_S):
            run(home, project, SystemClock(), stop)
    except ConfigError as e:
        sys.stderr.write(f"{e.message} {e.hint}\n")
        return WRONG_SETTING
    except CellfleetError as e:
        sys.stderr.write(f"{e.message} {e.hint}\n")
        return 1
    return 0


def run(home: Home, project: Project, clock: Clock, stop: threading.Event) -> None:
    """Take frames until ``stop`` is set.

    Args:
        home: of the instrument.
        project: its settings.
        clock: for intervals and heartbeats.
        stop: stops the camera.
    """
    settings = project.settings
    camera = Camera(
        home,
        settings.camera,
        settings.device.min_free_mb,
        lambda c: open_source(home, project, c, clock),
        clock,
        news=_news,
    )
    written: tuple[object, ...] = ()
    written_s = -1e18
    wait_s = 0.0
    while not stop.wait(min(wait_s, BEAT_S)):
        view = camera.step()
        wait_s = view.wait_s
        facts = (view.state, view.reason, view.experiment)
        if facts != written or clock.monotonic_s() - written_s >= BEAT_S:
            written, written_s = facts, clock.monotonic_s()
            _beat(home, view.state, view.reason, view.experiment, view.taken, clock)
    camera.close()
    running = camera.running.facts.experiment if camera.running is not None else ""
    _beat(home, "stopped", None, running, camera.taken, clock)


def open_source(home: Home, project: Project, camera: Camera, clock: Clock) -> CameraSource:
    """Open the source in the settings, after the last taken frame.

    Args:
        home: of the instrument.
        project: its settings.
        camera: returns the newest frames.
        clock: for intervals.

    Returns:
        The source.

    Raises:
        CameraError: it cannot be read.
    """
    settings = project.settings.camera
    folder = project.path(settings.source)
    frames = camera.newest_frames()
    if settings.kind == "folder":
        known = frozenset(f.taken.sha256 for f in frames)
        return Watched(settings, folder, home.state / "watched.jsonl", clock, known)
    last = frames[-1] if frames else None
    wait_s = 0.0
    if last is not None:
        elapsed_s = (clock.now() - last.taken.taken_at).total_seconds()
        wait_s = min(settings.interval_s, max(0.0, settings.interval_s - elapsed_s))
    position = last.position + 1 if last is not None else 0
    return Replay(settings, folder, clock, position=position, first_wait_s=wait_s)


def _beat(home: Home, state: str, reason: Reason | None, experiment: str, taken: int, clock: Clock) -> None:
    beat = CameraState.model_validate(
        {
            "at": clock.now(),
            "pid": os.getpid(),
            "state": state,
            "reason": reason,
            "experiment": experiment,
            "taken": taken,
        }
    )
    try:
        write_camera(home.camera_file, beat)
    except StorageError as e:
        _LOG.warning("%s", e.message)


def _news(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
