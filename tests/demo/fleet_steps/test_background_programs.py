"""Programs in the background end with the demo, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cellfleet.demo.fleet_steps.background_programs import Programs
from cellfleet.errors import DeviceError
from support_waiting import PATIENCE_S, wait_for_end, wait_until


def test_a_program_that_ended_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Programs(tmp_path / "logs", {}) as programs:
        program = programs.start("nobody", ["device", "run", str(home), "--tied"])
        program.process.wait(PATIENCE_S)
        with pytest.raises(DeviceError, match="nobody ended with exit code") as caught:
            programs.check()
    assert str(home) in caught.value.message
    assert "nobody.log" in caught.value.hint


_PARENT = """\
import sys, time
from pathlib import Path
from cellfleet.demo.fleet_steps.background_programs import Programs
with Programs(Path("logs"), {}) as programs:
    program = programs.start("server", ["fleet", "serve", "--tied", "--port", "0", "-p", sys.argv[1]])
    print(program.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_program_ends_with_its_parent(tmp_path: Path, end: str) -> None:
    (tmp_path / "cellfleet.toml").write_text("[fleet]\n")
    argv = [sys.executable, "-c", _PARENT, str(tmp_path)]
    parent = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: (tmp_path / "serve.json").exists(), "the server starts")
        child = psutil.Process(pid)
        parent.send_signal(getattr(signal, end))
        parent.wait(PATIENCE_S)
    wait_for_end([child])
