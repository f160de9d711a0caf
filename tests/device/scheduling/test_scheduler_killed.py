"""The process that does the work is killed again and again; in the end every frame is drawn once and no process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil

from cellfleet.device.server.spool import Spool
from cellfleet.ports import SystemClock
from cellfleet.wire.telemetry_events import FrameSegmented, FrameTaken
from support_scheduler import Instrument
from support_waiting import wait_for_end

PROGRAM = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from cellfleet.config import load_project
from cellfleet.device.system.home import Home
from cellfleet.device.slots import Slots
from cellfleet.device.server.spool import Spool
from cellfleet.device.scheduling.scheduler import FrameScheduler
from cellfleet.ports import SystemClock
home, sha256, clock = Home.at(Path(sys.argv[1])), sys.argv[2], SystemClock()
settings = load_project(home.root, environ={}, overrides=["device.threads=1", "device.thumbnail_every=2"]).settings
work = FrameScheduler(home, settings, Spool(home.spool_file, clock), clock)
work.switch(Slots(home).find(sha256))
while True:
    seen = work.poll(datetime.now(UTC))
    for pid in seen.pids:
        print("pid", pid[1], flush=True)
    for frame in seen.frames:
        print("frame", frame.frame, flush=True)
    if not work.pinned() and seen.pending == 0 and seen.experiment is None:
        print("done", flush=True)
        break
    time.sleep(0.01)
work.close()
"""


def run_until(argv: list[str], word: str) -> set[int]:
    """Start the program, kill it with its first line of that kind; gives the segmenters that it had."""
    pids: set[int] = set()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            kind, _, rest = line.strip().partition(" ")
            if kind == "pid":
                pids.add(int(rest))
            if kind == word:
                os.kill(child.pid, signal.SIGKILL) if word != "done" else None
                break
            assert kind != "done", line
        for _ in child.stdout:
            pass
    return pids


def test_killed_again_and_again(tmp_path: Path) -> None:
    box = Instrument(tmp_path / "home")
    slot = box.slot()
    facts = box.begin()
    names = [box.take(facts, i) for i in range(12)]
    box.end(facts)
    argv = [sys.executable, "-c", PROGRAM, str(box.home.root), slot.sha256]
    pids: set[int] = set()
    for word in ("pid", "frame", "frame", "pid", "frame"):
        pids |= run_until(argv, word)
    pids |= run_until(argv, "done")
    rows = box.rows(facts)
    assert Counter(r.frame for r in rows) == Counter(names)
    results = box.home.results / facts.experiment
    (run,) = [p for p in results.iterdir() if p.is_dir()]
    assert sorted(p.stem for p in (run / "rows").glob("*.json")) == names
    assert len((run / "frames.csv").read_text(encoding="utf-8").splitlines()) == 13
    assert json.loads((results / "closed.json").read_bytes())["segmented"] == 12
    spool = Spool(box.home.spool_file, SystemClock())
    batch = spool.next_batch("event", 10_000, 1 << 30)
    assert batch is not None
    assert Counter(e.frame for e in batch.events if isinstance(e, FrameTaken)) == Counter(names)
    assert {e.frame for e in batch.events if isinstance(e, FrameSegmented)} == set(names)
    picture = spool.next_picture()
    assert picture is not None
    assert picture.path.read_bytes()[:3] == b"\xff\xd8\xff"
    spool.close()
    wait_for_end(psutil.Process(p) for p in pids if psutil.pid_exists(p))
