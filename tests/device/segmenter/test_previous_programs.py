"""A segmenter program of the commit before the schema works with today's agent, and the other way round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support_previous import Side, unpack_side
from support_scheduler import Instrument

OLD_AGENT = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from cellfleet.config import load_project
from cellfleet.device.home import Home
from cellfleet.device.seams import Slot
from cellfleet.device.spool import Spool
from cellfleet.device.work import open_work
from cellfleet.ports import SystemClock
home, sha256, program, clock = Home.at(Path(sys.argv[1])), sys.argv[2], sys.argv[3], SystemClock()
settings = load_project(home.root, environ={}, overrides=["device.threads=1", f"device.software={program}"]).settings
work = open_work(home, settings, Spool(home.spool_file, clock), clock)
slot = Slot(home.slots / sha256[:12], sha256, "tiny", "1.0.0", 1, release_id=7, variant="onnxruntime/fp32")
tested = work.selftest(slot, [slot.bundle], 60)
print("selftest", tested.problem or [r.ap50 for r in tested.results], flush=True)
work.switch(slot)
while True:
    seen = work.poll(datetime.now(UTC))
    for frame in seen.frames:
        print("frame", frame.result, frame.reason, flush=True)
    if not work.pinned() and seen.pending == 0 and seen.experiment is None:
        break
    threading.Event().wait(0.02)
work.close()
"""


@pytest.fixture
def previous(tmp_path: Path) -> Side:
    folder = tmp_path / "previous"
    folder.mkdir()
    unpack_side(folder)
    return Side("previous", folder)


def test_a_previous_program_works_with_this_agent(previous: Side, tmp_path: Path) -> None:
    program = f"env PYTHONPATH={previous.folder} {sys.executable} -m cellfleet.device.segmenter_main"
    box = Instrument(tmp_path / "home", device__software=program)
    slot, facts = box.slot(), box.begin()
    for i in range(2):
        box.take(facts, i)
    box.end(facts)
    work = box.open(None)
    try:
        tested = work.selftest(slot, [slot.bundle], 60)
        assert (tested.problem, [r.ap50 for r in tested.results]) == (None, [1.0])
        work.switch(slot)
        box.until(work, lambda: len(box.outcomes) == 2 and not work.pinned())
    finally:
        box.close()
    assert [row.count for row in box.rows(facts)] == [6, 6]
    (table,) = (box.home.results / facts.experiment).glob("*/frames.csv")
    assert len(table.read_text(encoding="utf-8").splitlines()) == 3


def test_a_previous_agent_works_with_this_program(previous: Side, tmp_path: Path) -> None:
    box = Instrument(tmp_path / "home")
    slot, facts = box.slot(), box.begin()
    for i in range(2):
        box.take(facts, i)
    box.end(facts)
    program = f"env -u PYTHONPATH {sys.executable} -m cellfleet.device.segmenter.main"
    argv = [sys.executable, "-c", OLD_AGENT, str(box.home.root), slot.sha256, program]
    done = subprocess.run(argv, env=previous.environ(), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["selftest [1.0]", "frame segmented ", "frame segmented "]
    assert [row.count for row in box.rows(facts)] == [6, 6]
    (table,) = (box.home.results / facts.experiment).glob("*/frames.csv")
    assert len(table.read_text(encoding="utf-8").splitlines()) == 3
