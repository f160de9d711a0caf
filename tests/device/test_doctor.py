"""What a person beside an instrument is told: status and doctor."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from cellfleet.cli.init import INSTRUMENT, project_text
from cellfleet.device.doctor import Finding, examine
from cellfleet.device.slots import Slots
from cellfleet.device.system.file_lock import held
from cellfleet.device.system.home import Home
from cellfleet.device.system.identity import save_anchors, save_record
from cellfleet.device.update.status_file import read_status, status_lines
from cellfleet.errors import DeviceError
from cellfleet.ports import SystemClock
from cellfleet.wire.enrol import TrustAnchors
from simulators.world import World
from support_device import Releases, world_with_old

ANCHORS = TrustAnchors(image_root="a" * 64, director_root="b" * 64)


@pytest.fixture
def world(tmp_path: Path, releases: Releases) -> World:
    world = world_with_old(tmp_path, releases)
    world.home.project_file.write_text(project_text({"device.name": "sim-1"}, INSTRUMENT))
    save_record(world.home, world.record.model_copy(update={"server": ""}))
    save_anchors(world.home, ANCHORS)
    (tmp_path / "incoming").mkdir()
    return world


def found(home: Home) -> dict[str, Finding]:
    return {f.what: f for f in examine(home, home.project(), SystemClock())}


def test_a_lost_key_is_not_replaced(world: World) -> None:
    key = world.home.identity / "device.pem"
    key.unlink()
    assert found(world.home)["identity"].grade == "bad"
    assert "provision this instrument again" in found(world.home)["identity"].advice
    assert not key.exists()


def test_all_is_well_but_for_its_rest(world: World) -> None:
    findings = found(world.home)
    assert {f.grade for f in findings.values()} <= {"ok", "warn"}
    assert (findings["processes"].grade, findings["processes"].text) == ("warn", "the instrument is not running")
    assert findings["active"].text.startswith("tiny 1.0.0, onnxruntime/fp32")
    assert all(f.advice for f in findings.values() if f.grade != "ok")


def test_a_damaged_slot(world: World) -> None:
    slot = Slots(world.home).get("active")
    assert slot is not None
    slot.bundle.unlink()
    slot.bundle.write_bytes(b"x")
    assert found(world.home)["active"].grade == "bad"


def test_a_key_that_others_can_read(world: World) -> None:
    os.chmod(world.home.identity / "device.pem", 0o644)  # noqa: PTH101
    assert found(world.home)["key"].grade == "warn"
    (world.home.identity / "device.pem").write_text("none")
    assert found(world.home)["key"].grade == "bad"


def test_no_anchors_no_camera_no_provisioning(world: World, tmp_path: Path) -> None:
    (world.home.identity / "anchors.json").unlink()
    (tmp_path / "incoming").rmdir()
    (world.home.identity / "device.json").unlink()
    findings = found(world.home)
    assert [findings[k].grade for k in ("trust", "camera", "identity")] == ["bad"] * 3


def test_a_full_disk(world: World) -> None:
    text = world.home.project_file.read_text()
    world.home.project_file.write_text(text.replace("# min_free_mb = 1024", "min_free_mb = 1e12"))
    assert found(world.home)["disk"].grade == "bad"


def test_a_server_that_is_away(world: World) -> None:
    save_record(world.home, world.record.model_copy(update={"server": "http://127.0.0.1:1"}))
    finding = found(world.home)["server"]
    assert finding.grade == "bad"
    assert finding.advice


def test_a_damaged_spool_and_a_held_camera(world: World) -> None:
    world.home.spool_file.parent.mkdir()
    world.home.spool_file.write_bytes(b"no database" * 100)
    world.home.camera_hold.write_text("{}")
    findings = found(world.home)
    assert findings["spool"].grade == "bad"
    assert findings["camera"].grade == "warn"


def test_metadata_that_expires(world: World) -> None:
    now = SystemClock().now()
    folder = world.home.trust / "image"
    folder.mkdir(parents=True)

    def expires(name: str, days: float) -> None:
        when = (now + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        (folder / name).write_text(f'{{"signed": {{"expires": "{when}"}}}}')

    expires("1.root.json", 300)
    expires("timestamp.json", 1)
    assert found(world.home)["trust"].grade == "ok"
    expires("1.root.json", 3)
    assert "rotate" in found(world.home)["trust"].advice
    expires("timestamp.json", -1)
    assert "renews" in found(world.home)["trust"].advice


def test_the_status_of_a_stopped_and_of_a_running_instrument(world: World) -> None:
    now = world.clock.now()
    lines = dict(status_lines(read_status(world.home, now)))
    assert lines["state"].startswith("not running (last seen 2026-03-02 12:00")
    assert lines["active"].startswith("tiny 1.0.0 (onnxruntime/fp32), since 2026-03-02T12:00")
    assert lines["segmenter"].startswith("was ")
    with held(world.home.agent_lock, "a test"):
        status = read_status(world.home, now)
        assert dict(status_lines(status))["state"] == "idle"
        assert not dict(status_lines(status))["segmenter"].startswith("was ")
        late = read_status(world.home, now + timedelta(minutes=5))
        assert "no status for 300 s" in dict(status_lines(late))["state"]
    facts = status.facts
    assert facts["pids"]["agent"] == os.getpid()
    assert facts["active"]["label"] == "tiny 1.0.0"
    assert facts["update"]["outcome"] == "succeeded"
    assert facts["counters"]["taken"] == world.work.counters().taken


def test_the_status_of_what_never_ran(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    assert status_lines(read_status(home, SystemClock().now())) == [("state", "has never run here")]
    home.state.mkdir()
    home.status_file.write_text("{")
    assert status_lines(read_status(home, SystemClock().now())) == [("state", "has never run here")]
    with pytest.raises(DeviceError, match="not an instrument"):
        home.project()
