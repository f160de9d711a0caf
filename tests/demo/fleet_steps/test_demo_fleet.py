"""Waiting for instruments of the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellfleet.demo.command_runner import CommandRunner
from cellfleet.demo.fleet_steps.background_programs import Programs
from cellfleet.demo.fleet_steps.camera_scenes import FRAMES, Scene
from cellfleet.demo.fleet_steps.demo_fleet import DemoFleet, Instrument
from cellfleet.demo.fleet_steps.waiting import NotInTime
from support_waiting import PATIENCE_S

SIDE_PX = 544


def test_waiting_for_instruments_says_what_is_wrong_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, FRAMES, ("phase",), None, SIDE_PX)
    with Programs(tmp_path / "logs", {}) as programs:
        fleet = DemoFleet(CommandRunner(steps=8), tmp_path, programs)
        for name, taken, problems in (("A", 3, []), ("B", 0, ["the disk is nearly full"])):
            fleet.instruments.append(Instrument(name, tmp_path / name, scene))
            status = tmp_path / name / "state" / "status.json"
            status.parent.mkdir(parents=True)
            status.write_text(json.dumps({"counters": {"taken": taken}, "health": {"problems": problems}}))
        with pytest.raises(NotInTime, match="take frames: A; B: the disk is nearly full"):
            fleet.wait_instruments("take frames", ["A", "B"], lambda s: s["counters"]["taken"] > 0, timeout_s=0.0)
        assert fleet.wait_instruments("take frames", ["A"], lambda s: s["counters"]["taken"] > 0) < PATIENCE_S
    assert capsys.readouterr().out.splitlines()[-1].endswith("take frames: A")
