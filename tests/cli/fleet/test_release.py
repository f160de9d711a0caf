"""``cellfleet release``, ``deploy`` and ``lineage --server`` against a real server on loopback, and a device that verifies it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cellfleet.api_client import ApiClient, ServerRefuses
from cellfleet.canonical import sha256_file
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.fleet.client import FleetClient
from cellfleet.cli.main import run
from cellfleet.config import load_project
from cellfleet.device.server.client import ServerClient
from cellfleet.device.server.spool import Picture
from cellfleet.device.server.uploads import upload_picture
from cellfleet.device.system.identity import DeviceRecord, Identity
from cellfleet.fleet import ticker, trust_repository
from cellfleet.fleet.app import create_app
from cellfleet.fleet.context import Context, open_context
from cellfleet.fleet.ingest import telemetry
from cellfleet.fleet.serve import Stop, serve
from cellfleet.lineage import RecordStore, SigningKey, sign
from cellfleet.ports import SystemClock
from cellfleet.ports.http import SystemHttp
from cellfleet.trust import TrustFolder, Verifier, download, http_fetch
from cellfleet.wire.enrol import TrustAnchors
from cellfleet.wire.states import ReportedState
from cellfleet.wire.telemetry_events import Event, ExperimentStarted, FrameSegmented, FrameTaken
from cellfleet.wire.telemetry_otlp import encode_events
from support_bundle import tiny_bundle
from support_fleet import FACTS, TestClient, World
from support_onnx import tiny_spec
from support_rollout import PASSPHRASE, Instrument, decision, digest, instruments

Capture = pytest.CaptureFixture[str]
REASON = "the lab in Leiden needs it today"


@dataclass
class Desk:
    """A project with a trust folder, its fleet server on a free port, and people's tokens."""

    root: Path
    context: Context
    address: str
    world: World
    capsys: Capture
    monkeypatch: pytest.MonkeyPatch
    bundles: dict[str, Path] = field(default_factory=dict)

    def run(self, *argv: str, role: str = "operator", code: ExitCode = ExitCode.OK) -> str:
        """Output of a command; of one that fails, its error."""
        self.monkeypatch.setenv("CELLFLEET_API_TOKEN", self.world.token(role))
        self.capsys.readouterr()
        found = run([*argv])
        shown = self.capsys.readouterr()
        assert found == code, shown.err
        return shown.out if code in (ExitCode.OK, ExitCode.FINDINGS) else shown.err

    def facts(self, *argv: str, role: str = "operator", code: ExitCode = ExitCode.OK) -> Any:
        return json.loads(self.run(*argv, "--json", role=role, code=code))

    def bundle(self, version: str, verdict: str = "passed") -> Path:
        """A bundle with its records in the project; ``verdict`` "" leaves the decision out."""
        store = RecordStore(self.root / "records")
        data_set = store.put("data-set", {"entries": [{"split": "train"}, {"split": "test"}]})
        training = store.put("training", {"seed": 3, "epochs": 9, "data_set": data_set})
        spec = tiny_spec(version=version)
        path = tiny_bundle(self.root / version, spec, data_set=data_set, training_run=training)
        if verdict:
            lineage = {"data_set": data_set, "training_run": training, "project_commit": "c0ffee"}
            key = SigningKey.load_or_create(self.root / "keys" / "decision.pem")
            payload = decision(sha256_file(path), verdict, lineage=lineage, numbers={"ap50": 0.81})
            store.put("decision", sign(payload, key))
        return path

    def publish(self, version: str, *options: str, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.facts("release", "publish", str(self.bundle(version)), *options, **more)
        return made


@pytest.fixture
def desk(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELLFLEET_KEY_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("CELLFLEET_ONLINE_PASSPHRASE", PASSPHRASE)
    (tmp_path / "cellfleet.toml").write_text("[fleet]\ntick_s = 0.2\n")
    assert run(["trust", "init"]) == ExitCode.OK
    SigningKey.load_or_create(tmp_path / "keys" / "decision.pem")
    context = open_context(load_project(tmp_path, environ={}))
    trust_repository.take_folder(context)
    stop, ready, address = Stop(), threading.Event(), []

    def on_ready(at: str) -> None:
        address.append(at)
        ready.set()

    thread = threading.Thread(target=lambda: serve(context, port=0, stop=stop, on_ready=on_ready))
    thread.start()
    try:
        assert ready.wait(30)
        monkeypatch.setenv("CELLFLEET_SERVER", address[0])
        with TestClient(create_app(context), base_url="http://fleet.test") as client:
            yield Desk(tmp_path, context, address[0], World(context, client), capsys, monkeypatch)
    finally:
        stop.ask()
        thread.join(30)
        context.close()
    assert not thread.is_alive()


def test_from_a_bundle_to_an_instrument_that_verifies_it(desk: Desk) -> None:
    made = desk.publish("1.0.0", "--notes", "the first")
    ref = made["release"]
    assert (ref["name"], ref["version"], ref["counter"], made["verdict"]) == ("tiny", "1.0.0", 1, "passed")
    assert (made["missing"], made["override"]) == ([], {})
    assert made["card"]["numbers"] == {"ap50": 0.81}
    one = instruments(desk.world, "pilot", 1)[0]
    number = desk.facts("deploy", "start", "tiny@1.0.0", "--group", "pilot", "--agent", "probation_frames=8")["id"]
    wanted = one.ask(desk.context)
    assert wanted.release is not None
    assert (wanted.deployment_id, wanted.agent) == (number, {"probation_frames": 8})
    verifier = _verifier(desk, one)
    verifier.refresh()
    target = verifier.check(wanted.release, {})
    assert (target.sha256, target.deployment_id, target.generation) == (ref["sha256"], number, wanted.generation)
    url = f"{desk.address}/api/v1/artifacts/{target.sha256}"
    into = desk.root / "fetched.zip"
    download(SystemHttp(), url, target, into, clock=SystemClock(), headers=lambda: _headers(one))
    assert sha256_file(into) == ref["sha256"]
    _draw(desk, one, ref["sha256"])
    links = {
        x["what"]: x
        for x in desk.facts("lineage", "XYZ-001/p1/A1_0001", "--server", desk.address, role="viewer")["links"]
    }
    assert links["release"]["facts"]["published_by"] == "operator"
    assert links["decision"]["facts"]["signature"] == "good"
    assert links["training"]["facts"]["epochs"] == 9
    assert links["data set"]["facts"]["entries"] == 2
    assert links["project"]["facts"]["commit"] == "c0ffee"
    text = desk.run("lineage", "XYZ-001/p1/A1_0001", role="viewer")
    assert "* release" in text
    assert "approver: Dr Lin Mei-hua" in text
    assert desk.facts("lineage", digest("run"), "--server", desk.address, role="viewer")["complete"]


def _headers(one: Instrument) -> dict[str, str]:
    assert one.device.http is not None
    return {"Authorization": one.device.http.headers["authorization"]}


def _verifier(desk: Desk, one: Instrument) -> Verifier:
    http = SystemHttp()
    anchors = TrustAnchors.model_validate_json(http.request("GET", f"{desk.address}/api/v1/trust/anchors").body)
    assert anchors == TrustFolder.load(desk.root / "trust").anchors()
    base = f"{desk.address}/api/v1/trust"
    return Verifier(
        desk.root / "home" / "trust",
        anchors,
        http_fetch(http, f"{base}/image"),
        http_fetch(http, f"{base}/director/{one.device.device_id}", headers=lambda: _headers(one)),
        SystemClock(),
        device_id=one.device.device_id,
    )


def _draw(desk: Desk, one: Instrument, bundle: str) -> None:
    now = datetime.now(UTC)
    events: list[Event] = [
        ExperimentStarted(experiment="p1", plate="A172", started_at=now),
        FrameTaken(
            experiment="p1", frame="A1_0001", index=1, well="A1", time_s=60, taken_at=now, sha256=digest("raw"), bytes=9
        ),
        FrameSegmented(
            experiment="p1", frame="A1_0001", pin=1, run_digest=digest("run"), bundle_sha256=bundle, count=42,
            variant="onnxruntime/fp32", confluence_percent=41.5, mask_sha256=digest("mask"), segmented_at=now,
        ),
    ]  # fmt: skip
    telemetry.take_logs(desk.context, one.caller, "k", encode_events({}, events, now))


def test_our_own_instrument_asks_reports_and_uploads(desk: Desk) -> None:
    device = instruments(desk.world, "pilot", 1)[0].device
    record = DeviceRecord(device_id=device.device_id, name=device.name, claimed_at=datetime.now(UTC))
    client = ServerClient(desk.address, Identity(device.key, record), SystemHttp(), SystemClock())
    state, etag = client.desired("")
    assert state is not None
    assert client.desired(etag) == (None, etag)
    report = {
        "device_id": device.device_id, "sequence": 1, "boot_id": "b1", "at": datetime.now(UTC), "generation": 0,
        "state": "idle", "facts": FACTS,
    }  # fmt: skip
    client.report(ReportedState.model_validate(report))
    with pytest.raises(ServerRefuses) as refusal:
        client.report(ReportedState.model_validate({**report, "boot_id": "b2"}))
    assert refusal.value.code == "two-machines"
    path = desk.root / "overlay.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(9000))
    picture = Picture(1, "overlay", "p1", "A1_0001", 1, path, path.stat().st_size)
    for _ in range(2):
        upload_picture(ApiClient(desk.address, client.http, client), picture)
    viewer = FleetClient(desk.address, desk.world.token("viewer"))
    answer = viewer.api.request("GET", "/api/v1/devices/XYZ-001/pictures/p1/A1_0001/overlay")
    assert (answer.headers["content-type"], answer.body) == ("image/png", path.read_bytes())


def test_the_gate_refuses_and_an_approver_overrides(desk: Desk) -> None:
    failed, missing = str(desk.bundle("1.0.0", "failed")), str(desk.bundle("1.1.0", ""))
    before = TrustFolder.load(desk.root / "trust").image_files()
    error = desk.run("release", "publish", failed, code=ExitCode.REFUSED)
    assert "the gate refused tiny 1.0.0: AP@0.5 is 0.112, below the threshold 0.600" in error
    assert "has no decision record" in desk.run("release", "publish", missing, code=ExitCode.REFUSED)
    assert TrustFolder.load(desk.root / "trust").image_files() == before, "a refused release leaves nothing"
    error = desk.run("release", "publish", failed, "--override", REASON, code=ExitCode.REFUSED)
    assert "the role approver is needed" in error
    text = desk.run("release", "publish", failed, "--override", REASON, role="approver")
    assert f"OVERRIDE by approver: {REASON}" in text
    assert desk.facts("release", "publish", missing, "--override", REASON, role="approver")["missing"] == [
        "decision record"
    ]
    shown = desk.run("release", "show", "tiny", role="viewer")
    assert "OVERRIDE: approver" in shown
    rows = desk.facts("release", "list", role="viewer")
    assert [(r["release"]["version"], bool(r["override"])) for r in rows] == [("1.1.0", True), ("1.0.0", True)]
    assert "OVERRIDE" in desk.run("release", "list", role="viewer")


def test_publishing_goes_on_where_it_was_broken_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = str(desk.bundle("1.0.0"))

    def broken(_self: TrustFolder, _publication: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrustFolder, "keep", broken)
        desk.run("release", "publish", bundle, code=ExitCode.INTERRUPTED)
    first = desk.facts("release", "list")[0]
    again = desk.facts("release", "publish", bundle)
    assert (again["release"], again["bytes_sent"]) == (first["release"], 0)
    assert desk.publish("1.1.0")["release"]["counter"] == 2


def test_two_publishers_and_a_bundle_of_several_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellfleet.fleet.ingest import uploads

    monkeypatch.setattr(uploads, "PART_BYTES", 5000)
    made = desk.publish("1.0.0")
    assert made["bytes_sent"] == made["release"]["length"] > 3 * 5000
    other = TrustFolder.load(desk.root / "trust")
    assert other.next_counter("model", "tiny") == 2


def test_another_bundle_of_that_version(desk: Desk) -> None:
    desk.publish("1.0.0")
    path = tiny_bundle(desk.root / "other", tiny_spec(version="1.0.0"))
    error = desk.run("release", "publish", str(path), code=ExitCode.REFUSED)
    assert "1.0.0 is already published with other bytes" in error


def test_withdrawn(desk: Desk) -> None:
    number = desk.publish("1.0.0")["release"]["release_id"]
    instruments(desk.world, "pilot", 1)
    assert "withdrawn" in desk.run("release", "withdraw", str(number), "--reason", "draws debris")
    assert "was withdrawn" in desk.run("deploy", "start", "tiny", "--group", "pilot", code=ExitCode.REFUSED)
    assert "withdrawn:" in desk.run("release", "show", str(number))


def test_a_deployment_from_start_to_end(desk: Desk) -> None:
    desk.publish("1.0.0")
    pilot = instruments(desk.world, "pilot", 2)
    text = desk.run(
        "deploy", "start", "tiny", "--group", "pilot", "--phase", "1", "--phase", "100%,approval", "--reason", "finer"
    )
    assert "deployment 1: tiny 1.0.0 to pilot: running, phase 1 of 2: 1 offered, 1 waiting" in text
    assert "waits for: phase 1: 0 of 1 instruments have succeeded; 1 must" in text
    assert "has not ended" in desk.run("deploy", "start", "tiny", "--group", "pilot", code=ExitCode.REFUSED)
    pilot[0].succeeds(desk.context)
    assert "approval of phase 2" in desk.run("deploy", "show", "1", role="viewer")
    desk.run("deploy", "approve", "1", role="approver")
    assert "halted: operator: lunch" in desk.run("deploy", "halt", "1", "--reason", "lunch")
    assert "running" in desk.run("deploy", "resume", "1")
    pilot[1].moves(desk.context, "idle", "rolled-back", "too slow")
    shown = desk.facts("deploy", "show", "1", role="viewer")
    assert (shown["state"], [m["state"] for m in shown["members"]]) == ("halted", ["succeeded", "rolled-back"])
    assert "XYZ-002 rolled the release back: too slow" in desk.run("deploy", "show", "1")
    desk.run("deploy", "cancel", "1", "--reason", "done with it")
    rows = desk.facts("deploy", "list", "--group", "pilot", "--state", "cancelled")
    assert [r["id"] for r in rows] == [1]
    assert "cancelled" in desk.run("deploy", "list")


def test_watching(desk: Desk) -> None:
    desk.publish("1.0.0")
    pilot = instruments(desk.world, "pilot", 1)
    desk.run("deploy", "start", "tiny", "--group", "pilot")
    thread = threading.Thread(target=pilot[0].succeeds, args=(desk.context,))
    thread.start()
    text = desk.run("deploy", "show", "1", "--watch", role="viewer")
    thread.join(30)
    assert "XYZ-001: succeeded" in text
    assert "deployment 1: tiny 1.0.0 to pilot: succeeded" in text
    desk.publish("1.1.0")
    desk.run("deploy", "start", "tiny", "--group", "pilot")
    pilot[0].moves(desk.context, "idle", "refused", "golden frame g1")
    text = desk.run("deploy", "show", "2", "--watch", role="viewer", code=ExitCode.FINDINGS)
    assert "halted: XYZ-001 refused the release: golden frame g1" in text


def test_the_server_takes_keys_that_were_rotated_meanwhile(desk: Desk) -> None:
    desk.publish("1.0.0")
    desk.run("trust", "rotate", "models")
    ticker.tick(desk.context)
    assert desk.publish("1.1.0")["release"]["counter"] == 2


def test_a_server_that_is_away(desk: Desk) -> None:
    bundle = str(desk.bundle("1.0.0"))
    error = desk.run("release", "publish", bundle, "--server", "http://127.0.0.1:9", code=ExitCode.REFUSED)
    assert "127.0.0.1:9" in error


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("release", "show", "7"), "there is no release 7"),
        (("release", "show", "cells@9.9.9"), "there is no release cells@9.9.9"),
        (("release", "show", "@1"), "is not a release"),
        (("deploy", "show", "7"), "there is no deployment 7"),
        (("deploy", "start", "1", "--group", "g", "--phase", "1,sok-s=3"), "unknown option 'sok-s'"),
        (("deploy", "start", "1", "--group", "g", "--phase", "many"), "--phase many: count"),
        (("deploy", "start", "1", "--group", "g", "--phase", "0"), "--phase 0: count"),
        (("deploy", "start", "1", "--group", "g", "--window", "10-11"), "not a maintenance window"),
        (("deploy", "start", "1", "--group", "g", "--agent", "probation_frams=3"), "unknown setting"),
        (("deploy", "start", "1", "--group", "g", "--agent", "probation_frames=x"), "--agent probation_frames"),
        (("deploy", "start", "1", "--group", "g", "--agent", "probation_frames"), "the value is missing"),
        (("lineage", "a/b", "--server", "http://127.0.0.1:9"), "not a frame or a run digest"),
        (("lineage", "XYZ-404/p1/A1_0001"), "there is no instrument XYZ-404"),
    ],
)
def test_mistakes(desk: Desk, argv: tuple[str, ...], text: str) -> None:
    usage = any(
        word in text
        for word in ("unknown", "--phase", "maintenance window", "--agent", "is missing", "is not a release")
    )
    error = desk.run(*argv, role="viewer", code=ExitCode.USAGE if usage else ExitCode.REFUSED)
    assert text in error
    assert "Traceback" not in error


def test_windows_and_phases_reach_the_server(desk: Desk) -> None:
    desk.publish("1.0.0")
    instruments(desk.world, "pilot", 4)
    made = desk.facts(
        "deploy", "start", "1", "--group", "pilot", "--phase", "25%,max-failures=1", "--phase", "all", "--soak-s", "60",
        "--window", "22:00-04:00", "--window-days", "sat,sun", "--window-offset-min", "480", "--needs-approval",
    )  # fmt: skip
    request = made["request"]
    assert [(p["percent"], p["max_failures"], p["soak_s"]) for p in request["phases"]] == [(25, 1, 60), (100, 0, 60)]
    assert request["window"] == {"days": [5, 6], "start": "22:00", "end": "04:00", "utc_offset_min": 480}
    assert made["state"] == "awaiting-approval"


def test_a_client_reads_lists_in_portions(desk: Desk) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        desk.publish(version)
    client = FleetClient(desk.address, desk.world.token("viewer"))
    portion = client.get("/api/v1/releases", limit=2)
    assert len(portion["items"]) == 2
    assert len(list(client.all("/api/v1/releases", limit=2))) == 3
