"""The launcher with real processes: it watches, starts again, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from cellfleet.device.launcher import Launcher
from cellfleet.device.system.home import Home
from cellfleet.errors import DeviceError
from cellfleet.ports import SystemClock
from support_waiting import PATIENCE_S, wait_for_end, wait_until

GOOD = """
    import os, subprocess, sys, threading
    from cellfleet.device.system.parent_watchdog import stop_with_parent
    stop = threading.Event()
    stop_with_parent(stop)
    print("up", os.getpid(), flush=True)
    print("a line of the log", file=sys.stderr, flush=True)
    stop.wait()
    print("ends in order", flush=True)
"""
DIES = "import sys; print('dying', flush=True); sys.exit(9)"
DEAF = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", os.getpid(), flush=True)
    while True:
        time.sleep(60)
"""
PROGRAM = """
    import sys
    from pathlib import Path
    from cellfleet.device.system.home import Home
    from cellfleet.device.launcher import Launcher
    from cellfleet.ports import SystemClock
    home, camera, agent = sys.argv[1:]
    say = lambda who, text: print(f"{who}: {text}", flush=True)
    Launcher(Home.at(Path(home)), SystemClock(), say, programs={"camera": ("-c", camera), "agent": ("-c", agent)}).run()
"""


def source(text: str) -> str:
    return textwrap.dedent(text)


class Running:
    """A launcher in a thread of this process, and what it said."""

    def __init__(self, home: Home, programs: Mapping[str, tuple[str, ...]], grace_s: float = 10.0) -> None:
        self.said: list[tuple[str, str]] = []
        self.launcher = Launcher(
            home,
            SystemClock(),
            lambda who, text: self.said.append((who, text)),
            programs=programs,
            grace_s=grace_s,
            first_wait_s=0.05,
        )
        self.thread = threading.Thread(target=self.launcher.run, daemon=True)
        self.thread.start()

    def pids(self, who: str, word: str = "up") -> list[int]:
        return [int(text.split()[1]) for name, text in self.said if name == who and text.startswith(f"{word} ")]

    def stop(self) -> None:
        self.launcher.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Running]:
    programs = {"camera": ("-c", source(GOOD)), "agent": ("-c", source(GOOD))}
    running = Running(Home.at(tmp_path), programs)
    wait_until(lambda: bool(running.pids("camera")) and bool(running.pids("agent")), "both are up")
    yield running
    running.stop()


def test_both_end_in_order(two: Running, tmp_path: Path) -> None:
    pids = two.pids("camera") + two.pids("agent")
    two.stop()
    assert ("camera", "ends in order") in two.said
    assert ("agent", "ends in order") in two.said
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "a line of the log" in (tmp_path / "log" / "agent.log").read_text()
    assert ("agent", "a line of the log") not in two.said, "the log is not for people"


def test_a_killed_child_is_started_again(two: Running) -> None:
    first = two.pids("camera")[0]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(two.pids("camera")) == 2, "the camera is up again")
    assert len(two.pids("agent")) == 1, "the agent goes on"
    assert any("by signal 9" in text for _, text in two.said)


def test_a_child_that_dies_at_once_waits_longer_each_time(tmp_path: Path) -> None:
    running = Running(Home.at(tmp_path), {"agent": ("-c", DIES)})
    wait_until(lambda: sum(text == "dying" for _, text in running.said) >= 4, "it was started four times")
    running.stop()
    assert any("exit code 9" in text for _, text in running.said)


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    running = Running(Home.at(tmp_path), {"agent": ("-c", source(DEAF))}, grace_s=0.3)
    wait_until(lambda: bool(running.pids("agent", "deaf")), "it is up")
    pid = running.pids("agent", "deaf")[0]
    running.stop()
    assert not psutil.pid_exists(pid)
    assert any("killed" in text for _, text in running.said)


def test_one_launcher_per_home(two: Running, tmp_path: Path) -> None:
    other = Launcher(Home.at(tmp_path), SystemClock(), lambda _who, _text: None, programs={})
    with pytest.raises(DeviceError, match=f"in use by .*process {os.getpid()}"):
        other.run()
    assert two.thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_behind_when_the_launcher_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-c", source(PROGRAM), str(tmp_path), source(GOOD), source(GOOD)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        pids: list[int] = []
        while len(pids) < 2:
            line = launcher.stdout.readline()
            assert line, "the launcher ended"
            if ": up " in line:
                pids.append(int(line.split()[-1]))
        children = [psutil.Process(pid) for pid in pids]
        launcher.send_signal(number)
        launcher.wait(PATIENCE_S)
        wait_for_end(children)


def test_an_instrument_s_programs_need_the_base_alone() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'monai', 'fastapi', 'sqlalchemy', 'uvicorn', 'jinja2', 'pyarrow', 'scipy', 'openvino'):\n"
        "    sys.modules[name] = None\n"
        "import cellfleet.device.update.process, cellfleet.device.camera.process, cellfleet.device.launcher\n"
        "import cellfleet.device.scheduling.scheduler, cellfleet.device.server.telemetry\n"
        "import cellfleet.device.update.install, cellfleet.device.doctor\n"
        "assert 'onnxruntime' not in sys.modules, 'the agent and the camera are lean'\n"
        "assert 'onnx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
