"""A fleet server and an instrument as real processes, each of a version of its own, and the people's commands of today."""

from __future__ import annotations

import contextlib
import html
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from cellfleet.canonical import sha256_file
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.fleet.client import FleetClient
from cellfleet.cli.main import run
from cellfleet.errors import FleetError
from cellfleet.lineage import RecordStore, SigningKey, sign
from cellfleet.trust import TrustFolder
from support_bundle import discs
from support_images import write_tiff
from support_previous import Side
from support_rollout import PASSPHRASE, decision, secrets
from support_waiting import wait_until

POLL_S = 0.25
"""Each look costs the server some work."""
PASSWORD = "a password of the journeys"
PERSON = "olga"
GROUP, NAME = "pilot", "XYZ-001"
SECRETS = {"CELLFLEET_KEY_PASSPHRASE": PASSPHRASE, "CELLFLEET_ONLINE_PASSPHRASE": PASSPHRASE}
QUICK = {
    "camera.kind": "replay",
    "camera.interval_s": "0.8",
    "camera.frames_per_experiment": "2",
    "camera.pixel_size_um": "0.5",
    "agent.tick_s": "0.2",
    "agent.retry_s": "0.2",
    "agent.probation_frames": "2",
    "agent.probation_max_slowdown": "1000",
    "device.threads": "1",
}


@dataclass
class Pairing:
    """A project with its server, and one instrument.

    Attributes:
        process: the server.
        root: folder of all: the project, ``home`` of the instrument, ``frames``.
        server, device: their versions.
    """

    root: Path
    server: Side
    device: Side
    address: str = ""
    token: str = ""
    process: subprocess.Popen[bytes] | None = None
    releases: dict[str, int] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The instrument's folder."""
        return self.root / "home"

    @property
    def api(self) -> FleetClient:
        """The server, for an operator."""
        return FleetClient(self.address, self.token)

    def found_project(self) -> None:
        """Settings, trust roots, an operator, and images for the camera."""
        settings = "[fleet]\ntick_s = 0.5\npoll_s = 0.3\nport = 0\n"
        (self.root / "cellfleet.toml").write_text(settings, encoding="utf-8")
        if not (self.root / "trust").exists():
            TrustFolder.init(self.root / "trust", secrets, datetime.now(UTC))
        flags = ("--role", "operator", "--password-stdin", "--token")
        found = self.server.facts("fleet", "user", "add", PERSON, *flags, cwd=self.root, stdin=f"{PASSWORD}\n")
        self.token = found["token"]
        for i in range(6):
            write_tiff(self.root / "frames" / f"f{i}.tif", discs(i)[0])

    def publish(self, bundle: Path, version: str) -> None:
        """Publish a bundle that passed its gate, by today's command."""
        key = SigningKey.load_or_create(self.root / "keys" / "decision.pem")
        RecordStore(self.root / "records").put("decision", sign(decision(sha256_file(bundle)), key))
        variables = {"CELLFLEET_SERVER": self.address, "CELLFLEET_API_TOKEN": self.token, **SECRETS}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            assert run(["release", "publish", str(bundle), "-p", str(self.root)]) == ExitCode.OK
        (release,) = (r for r in self.api.all("/api/v1/releases") if r["release"]["version"] == version)
        self.releases[version] = int(release["release"]["release_id"])

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """The server runs."""
        facts = self.root / "serve.json"
        log = self.root / "server.log"
        with self.server.program("fleet", "serve", cwd=self.root, log=log, **SECRETS) as process:
            alive = lambda: process.poll() is None  # noqa: E731
            wait_until(facts.exists, lambda: log.read_text(encoding="utf-8"), alive=alive)
            self.process, self.address = process, str(json.loads(facts.read_bytes())["address"])
            yield

    def provision(self) -> None:
        """The instrument claims its place, and an operator accepts it."""
        token = self.api.post("/api/v1/claims", {"note": "a journey"})["token"]
        values = {**QUICK, "camera.source": str(self.root / "frames")}
        flags = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        argv = ("device", "provision", self.home, "--server", self.address, "--token", token, "--name", NAME, *flags)
        self.device.run(*argv, cwd=self.root)
        self.api.post("/api/v1/groups", {"name": GROUP})
        self.api.post(f"/api/v1/devices/{NAME}/accept", {"group": GROUP, "reason": "its key was compared"})

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The instrument runs."""
        log = self.root / "device.log"
        with self.device.program("device", "run", self.home, cwd=self.root, log=log) as process:
            yield
            assert process.poll() is None, log.read_text(encoding="utf-8")

    def deploy(self, version: str, **agent: float) -> dict[str, Any]:
        """Deploy a release and wait for its end on the instrument; the instrument's place in the deployment."""
        body = {"release_id": self.releases[version], "group": GROUP, "phases": [{"percent": 100}], "agent": agent}
        number = int(self.api.post("/api/v1/deployments", body)["id"])
        path = f"/api/v1/deployments/{number}"
        ended = lambda: self.api.get(path)["state"] in ("succeeded", "halted")  # noqa: E731
        wait_until(ended, f"deployment {number} of {version} ends", every_s=POLL_S)
        (member,) = self.api.all(f"{path}/members")
        if self.api.get(path)["state"] == "halted":
            self.api.post(f"{path}/cancel", {"reason": "it has shown what it does"})
        return member

    def page(self, path: str) -> str:
        """A page, as a person sees it who signed in."""
        with httpx.Client(base_url=self.address, follow_redirects=True) as http:
            signed_in = http.post("/api/v1/session", json={"name": PERSON, "password": PASSWORD})
            assert signed_in.status_code < 300, signed_in.text
            answer = http.get(path)
            assert answer.status_code == 200, answer.text
            return html.unescape(answer.text)

    def has(self, path: str) -> bool:
        """The API has something at this path."""
        try:
            return bool(self.api.api.request("GET", path).body)
        except FleetError:
            return False

    def taken(self) -> int:
        """Frames that the instrument has on its disk."""
        return len(list((self.home / "frames").glob("*/*.tif")))

    def log(self) -> str:
        """What the agent wrote into its log."""
        return (self.home / "log" / "agent.log").read_text(encoding="utf-8")


@contextlib.contextmanager
def pairing(root: Path, server: Side, device: Side) -> Iterator[Pairing]:
    """A new project with its server, which runs, and a provisioned instrument, which does not yet."""
    made = Pairing(root, server, device)
    made.found_project()
    with made.serving():
        made.provision()
        yield made
