"""``cellfleet device`` as people use it: a fleet of one with real processes, real signatures and a real network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from cellfleet.canonical import sha256_file
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.device.camera.inhibit_lease import read_leases
from cellfleet.device.system.home import Home
from cellfleet.trust import TrustFolder
from cellfleet.trust.folder import ArtifactBytes
from cellfleet.trust.offline_folder import export
from support_bundle import discs, tiny_bundle
from support_images import write_tiff
from support_onnx import tiny_spec
from support_trust import secret
from support_waiting import PATIENCE_S, wait_for_end, wait_until

Capture = pytest.CaptureFixture[str]
MODELS: dict[str, float] = {"1.0.0": 6.0, "1.1.0": -6.0}
"""Version -> gain of the tiny network; a negative one draws nonsense."""


class Site:
    """A publisher's folder with releases, and frames to be replayed."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, datetime.now(UTC)
        self.trust = TrustFolder.init(root / "trust", secret, self.now)
        self.bundles: dict[str, Path] = {}
        for version, gain in MODELS.items():
            path = tiny_bundle(root / version, tiny_spec(version=version), gain=gain)
            self.bundles[version] = path
            made = self.trust.publish(
                ArtifactBytes(sha256_file(path), path.stat().st_size),
                kind="model",
                name="tiny",
                version=version,
                secrets=secret,
                now=self.now,
            )
            self.trust.keep(made)
        for i in range(6):
            write_tiff(root / "frames" / f"f{i}.tif", discs(i)[0])

    def stick(self, device_id: str, version: str, out: Path) -> Path:
        """An offline folder with one release for one instrument."""
        artifacts = [self.bundles[version]]
        export(self.trust, out, devices=[device_id], artifacts=artifacts, life=timedelta(days=9), secrets=secret,
               now=self.now)  # fmt: skip
        return out


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def home(tmp_path: Path, site: Site) -> Home:
    settings = {
        "camera.kind": "replay",
        "camera.source": str(site.root / "frames"),
        "camera.interval_s": "0.3",
        "camera.frames_per_experiment": "3",
        "camera.pixel_size_um": "0.5",
        "agent.tick_s": "0.2",
        "agent.probation_frames": "2",
        "agent.probation_max_slowdown": "1000",
        "device.threads": "1",
    }
    flags = [x for key, value in settings.items() for x in ("--set", f"{key}={value}")]
    home = Home.at(tmp_path / "home")
    argv = ["device", "provision", str(home.root), "--alone", "--name", "one"]
    assert run([*argv, "--trust-anchors", str(site.root / "trust"), *flags]) == ExitCode.OK
    return home


def device_id(home: Home) -> str:
    return str(json.loads((home.identity / "device.json").read_bytes())["device_id"])


def status(home: Home) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(home.status_file.read_bytes())
    except OSError:
        return {}
    return facts


@pytest.fixture
def running(home: Home, site: Site, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The instrument with version 1.0.0, running, tied to this process."""
    stick = site.stick(device_id(home), "1.0.0", tmp_path / "stick")
    assert run(["device", "install", str(stick), str(home.root)]) == ExitCode.OK
    argv = [sys.executable, "-c", "from cellfleet.cli.entry import main; main()", "device", "run", str(home.root)]
    with subprocess.Popen([*argv, "--tied"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_until(lambda: bool(home.children_file.exists() and status(home).get("state")), "the instrument is up")
        yield process
        process.kill()


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes of an instrument."""
    return list(psutil.Process(process.pid).children(recursive=True))


def test_a_fleet_of_one(running: subprocess.Popen[bytes], home: Home, site: Site, tmp_path: Path,
                        capsys: Capture) -> None:  # fmt: skip
    """It keeps what is good, refuses nonsense while it runs, survives the death of its agent, and ends whole."""
    wait_until(lambda: status(home)["update"]["outcome"] == "succeeded", "the first frames decide")
    bad = site.stick(device_id(home), "1.1.0", tmp_path / "bad")
    capsys.readouterr()
    assert run(["device", "install", str(bad), str(home.root)]) == ExitCode.REFUSED
    told = capsys.readouterr()
    assert "the agent is running and installs it" in told.out
    assert "tiny 1.1.0: refused: self-test" in told.err
    assert status(home)["active"]["label"] == "tiny 1.0.0"

    agent = status(home)["pids"]["agent"]
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: status(home)["pids"]["agent"] != agent, "another agent")
    taken = status(home)["counters"]["taken"]
    wait_until(lambda: status(home)["counters"]["segmented"] > taken, "frames go on being drawn")
    capsys.readouterr()
    assert run(["device", "status", str(home.root), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["running"]

    assert run(["device", "run", str(home.root)]) == ExitCode.REFUSED
    assert "is in use by `cellfleet device run`" in capsys.readouterr().err

    processes = family(running)
    assert len(processes) >= 3
    assert running.stdin is not None
    running.stdin.close()
    assert running.wait(PATIENCE_S) == 0
    wait_for_end(processes)
    assert run(["device", "status", str(home.root)]) == ExitCode.FINDINGS
    assert "not running" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_stays_behind(running: subprocess.Popen[bytes], home: Home, number: signal.Signals) -> None:
    wait_until(lambda: bool(status(home)["pids"]["segmenters"]), "a segmenter is up")
    processes = family(running)
    running.send_signal(number)
    running.wait(PATIENCE_S)
    wait_for_end(processes)


def test_a_bundle_alone_is_not_enough(home: Home, site: Site, capsys: Capture) -> None:
    assert run(["device", "install", str(site.bundles["1.0.0"]), str(home.root)]) == ExitCode.REFUSED
    assert "no signed metadata" in capsys.readouterr().err
    assert run(["device", "install", str(site.root / "none"), str(home.root)]) == ExitCode.REFUSED


def test_a_bundle_within_its_folder(home: Home, site: Site, tmp_path: Path, capsys: Capture) -> None:
    stick = site.stick(device_id(home), "1.0.0", tmp_path / "stick")
    bundle = next((stick / "artifacts").iterdir())
    assert run(["device", "install", str(bundle), str(home.root), "--json"]) == ExitCode.OK
    assert '"outcome": "probation"' in capsys.readouterr().out
    other = stick / "other.zip"
    other.write_bytes(b"x")
    assert run(["device", "install", str(other), str(home.root)]) == ExitCode.REFUSED
    assert "the folder holds tiny 1.0.0" in capsys.readouterr().err


def test_a_folder_for_another_instrument(home: Home, site: Site, tmp_path: Path, capsys: Capture) -> None:
    stick = site.stick("dev-000000000000", "1.0.0", tmp_path / "stick")
    assert run(["device", "install", str(stick), str(home.root)]) == ExitCode.REFUSED
    assert "error:" in capsys.readouterr().err
    assert not home.slots.exists()


def test_holding_updates_and_the_camera(home: Home, capsys: Capture) -> None:
    assert run(["device", "hold", str(home.root), "--reason", "a long run", "--hours", "2"]) == ExitCode.OK
    leases, _ = read_leases(home.inhibit)
    assert [x.reason for x in leases] == ["a long run"]
    assert run(["device", "release-hold", str(home.root)]) == ExitCode.OK
    assert read_leases(home.inhibit) == ([], [])
    assert run(["device", "camera", str(home.root), "stop", "--reason", "cleaning"]) == ExitCode.OK
    assert json.loads(home.camera_hold.read_bytes())["reason"] == "cleaning"
    assert run(["device", "camera", str(home.root), "start"]) == ExitCode.OK
    assert not home.camera_hold.exists()
    assert "camera" in capsys.readouterr().out


def test_doctor(home: Home, capsys: Capture) -> None:
    assert run(["device", "doctor", str(home.root)]) == ExitCode.OK
    capsys.readouterr()
    (home.identity / "anchors.json").unlink()
    assert run(["device", "doctor", str(home.root), "--json"]) == ExitCode.FINDINGS
    grades = {f["what"]: f["grade"] for f in json.loads(capsys.readouterr().out)}
    assert grades["trust"] == "bad"


def test_settings_of_the_flags_are_written(home: Home) -> None:
    settings = home.project().settings
    assert (settings.camera.kind, settings.camera.frames_per_experiment) == ("replay", 3)
    assert settings.device.name == "one"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--server", "http://x", "--token", "t"], "needs a name"),
        (["--name", "a"], "needs --server and --token"),
        (["--name", "a", "--server", "127.0.0.1:8460", "--token", "t"], "not an address of a server"),
        (["--name", "a", "--alone"], "needs --trust-anchors"),
        (["--name", "a", "--alone", "--server", "http://x"], "excludes --server"),
        (["--name", "a", "--server", "http://x", "--token", "t", "--trust-anchors", "."], "needs --alone"),
        (["--name", "a", "--alone", "--trust-anchors", ".", "--set", "camera.knd=replay"], "camera.knd"),
        (["--name", "a", "--alone", "--trust-anchors", ".", "--set", "training.epochs=3"], "no section"),
    ],
)
def test_wrong_flags(tmp_path: Path, flags: list[str], words: str, capsys: Capture) -> None:
    assert run(["device", "provision", str(tmp_path / "home"), *flags]) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_a_server_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    token = f"cf-claim-0123456789abcdef.{'0' * 32}"
    argv = ["device", "provision", str(tmp_path / "home"), "--server", "http://127.0.0.1:1", "--token", token]
    assert run([*argv, "--name", "a"]) == ExitCode.REFUSED
    assert "is the server running?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "status", "doctor", "release-hold"])
def test_what_is_no_instrument(tmp_path: Path, command: str, capsys: Capture) -> None:
    assert run(["device", command, str(tmp_path)]) == ExitCode.REFUSED
    assert "is not an instrument" in capsys.readouterr().err
