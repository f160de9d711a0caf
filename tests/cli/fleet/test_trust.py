"""``cellfleet trust``: a folder is made, shown, changed and exported; mistakes are told with what to do."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cellfleet.canonical import sha256_file
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.lineage import RecordStore, SigningKey, sign
from cellfleet.ports import SystemClock
from cellfleet.trust import TrustFolder, Verifier, folder_fetch
from cellfleet.trust.folder import ArtifactBytes
from cellfleet.trust.rotation import renew
from support_bundle import tiny_bundle
from support_trust import DEVICE, PASSPHRASE, secret
from support_waiting import PATIENCE_S

Capture = pytest.CaptureFixture[str]


class Desk:
    """A publisher's desk: a folder, and passphrases in the environment."""

    def __init__(self, root: Path, capsys: Capture) -> None:
        self.root, self.capsys = root, capsys

    def run(self, *arguments: str, code: ExitCode = ExitCode.OK) -> str:
        assert run(["trust", *arguments]) == code
        shown = self.capsys.readouterr()
        return shown.out if code in (ExitCode.OK, ExitCode.FINDINGS) else shown.err

    def facts(self, *arguments: str, code: ExitCode = ExitCode.OK) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*arguments, "--json", code=code))
        return found

    def publish(self, version: str) -> Path:
        path = self.root / f"{version}.zip"
        path.write_bytes(f"bundle {version}".encode())
        folder = TrustFolder.load(self.root / "trust")
        made = folder.publish(
            ArtifactBytes(sha256_file(path), path.stat().st_size),
            kind="model",
            name="cells",
            version=version,
            secrets=secret,
            now=datetime.now(UTC),
        )
        folder.keep(made)
        return path


@pytest.fixture
def desk(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELLFLEET_KEY_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("CELLFLEET_ONLINE_PASSPHRASE", PASSPHRASE)
    return Desk(tmp_path, capsys)


@pytest.fixture
def made(desk: Desk) -> Desk:
    desk.run("init")
    return desk


def test_init_makes_the_folder_of_the_project(desk: Desk) -> None:
    (desk.root / "cellfleet.toml").write_text('[fleet]\ntrust = "secrets/trust"\n')
    text = desk.run("init")
    assert "10 keys" in text
    assert "2 of 3 root keys must sign" in text
    anchors = TrustFolder.load(desk.root / "secrets" / "trust").anchors()
    facts = desk.facts("status")
    assert facts["anchors"]["image_root"] == anchors.image_root
    assert facts["anchors"]["short"] in text
    assert len(facts["anchors"]["short"]) == 32


def test_init_replaces_nothing(made: Desk) -> None:
    text = made.run("init", code=ExitCode.REFUSED)
    assert "not empty" in text
    assert "trust rotate" in text


def test_without_a_passphrase_nothing_is_made(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELLFLEET_ONLINE_PASSPHRASE")
    text = desk.run("init", code=ExitCode.REFUSED)
    assert "CELLFLEET_ONLINE_PASSPHRASE" in text
    assert not (desk.root / "trust").exists()


def read_until(terminal: int, end: bytes) -> bytes:
    """What a terminal shows, until it ends so."""
    shown, until = b"", time.monotonic() + PATIENCE_S
    while not shown.rstrip(b"\r\n").endswith(end):
        ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
        assert ready, shown
        shown += os.read(terminal, 4096)
    return shown


@pytest.mark.skipif(os.name == "nt", reason="there is no pseudo terminal there")
def test_on_a_terminal_the_passphrases_are_asked_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    for variable in ("CELLFLEET_KEY_PASSPHRASE", "CELLFLEET_ONLINE_PASSPHRASE"):
        monkeypatch.delenv(variable)
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-c", "from cellfleet.cli.entry import main; main()", "trust", "init"]
    child = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    try:
        for _ in range(4):  # both passphrases, and both again
            asked = read_until(ours, b": ")  # the space comes when the echo is off
            assert b"assphrase" in asked or b"epeat" in asked, asked
            os.write(ours, PASSPHRASE.encode() + b"\n")
            shown += asked
        shown += read_until(ours, b"server")
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait(60)
        os.close(ours)
    assert PASSPHRASE.encode() not in shown
    TrustFolder.load(desk.root / "trust").signer("models", secret)


def test_status_tells_of_roles_in_plain_words(made: Desk) -> None:
    text = made.run("status")
    root = next(line for line in text.splitlines() if line.startswith("root") and "image" in line)
    assert "root-1 (file), root-2 (file), root-3 (file)" in root
    assert "2 of 3" in root
    assert "good" in root
    assert "in 7" in root
    assert "the server renews it" in text
    roles = {(r["repository"], r["role"]): r for r in made.facts("status")["roles"]}
    assert roles["image", "models"] == {
        "role": "models",
        "repository": "image",
        "keys": ["models (file)"],
        "threshold": 1,
        "version": 1,
        "expires": roles["image", "models"]["expires"],
        "state": "ok",
    }


def test_status_ends_with_1_when_something_expires(made: Desk) -> None:
    folder = TrustFolder.load(made.root / "trust")
    renew(folder, "models", secret, datetime.now(UTC) - timedelta(days=350))
    text = made.run("status", code=ExitCode.FINDINGS)
    assert "renew it soon" in text
    assert "to renew: models, snapshot: cellfleet trust rotate models --renew" in text
    renew(folder, "models", secret, datetime.now(UTC) - timedelta(days=400))
    facts = made.facts("status", code=ExitCode.FINDINGS)
    assert {r["role"] for r in facts["roles"] if r["state"] == "expired"} == {"models", "snapshot"}
    made.run("rotate", "models", "--renew")
    assert "good" in made.run("status")


def test_rotate_and_renew(made: Desk) -> None:
    before = made.facts("status")["keys"]["models"]["keyid"]
    facts = made.facts("rotate", "models")
    assert facts["files"] == ["image/2.models.json", "image/2.snapshot.json", "image/2.targets.json"]
    assert facts["keys"]["models"]["keyid"] != before
    assert "a new key signs" in made.run("rotate", "root-2")
    assert "signed again" in made.run("rotate", "root", "--renew")
    roles = {(r["repository"], r["role"]): r["version"] for r in made.facts("status")["roles"]}
    assert (roles["image", "root"], roles["director", "root"]) == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rotate", "nothing"], ExitCode.REFUSED, "the keys are root-1"),
        (["rotate", "director", "--renew"], ExitCode.REFUSED, "renewable are root"),
        (["rotate", "models", "--uri", "hsm:1"], ExitCode.USAGE, "belong together"),
        (["rotate", "models", "--renew", "--uri", "hsm:1", "--public", "x"], ExitCode.USAGE, "keeps the key"),
        (["rotate", "models", "--uri", "hsm:1", "--public", "absent.pub"], ExitCode.REFUSED, "absent.pub"),
        (["status", "--trust", "elsewhere"], ExitCode.REFUSED, "not a trust folder"),
        (["init", "--trust", "new", "--key", "root-1"], ExitCode.USAGE, "NAME=VALUE"),
        (["init", "--trust", "new", "--key", "root-1=hsm:1"], ExitCode.USAGE, "belong together"),
        (["allow", "cells", "--from", "2", "--to", "1", "--reason", "x"], ExitCode.REFUSED, "no release of cells"),
        (["export", "usb", "--device", DEVICE, "--artifact", "absent.zip"], ExitCode.STORAGE, "absent.zip"),
        (
            ["export", "o", "--device", DEVICE, "--artifact", "a", "--decision", "d"],
            ExitCode.USAGE,
            "needs --publish",
        ),
        (["export", "usb", "--device", "me", "--artifact", "keys.json"], ExitCode.REFUSED, "device_id"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_mistakes(made: Desk, arguments: list[str], code: ExitCode, words: str) -> None:
    assert words in made.run(*arguments, code=code)


def test_a_wrong_passphrase(made: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLFLEET_KEY_PASSPHRASE", "not this one")
    text = made.run("rotate", "models", code=ExitCode.REFUSED)
    assert "wrong passphrase" in text
    assert "CELLFLEET_KEY_PASSPHRASE" in text
    made.run("status")


def test_an_allowance(made: Desk) -> None:
    made.publish("1.0.0")
    made.publish("1.1.0")
    facts = made.facts("allow", "cells", "--from", "2", "--to", "1", "--reason", "misses cells", "--device", DEVICE)
    assert facts["allowance"] == f"allowances/model/cells/2-1-{DEVICE}"
    left = datetime.fromisoformat(facts["expires"]) - datetime.now(UTC)
    assert timedelta(days=6.9) < left < timedelta(days=7)
    assert "valid until" in made.run("allow", "cells", "--from", "2", "--to", "1", "--reason", "misses cells")
    text = made.run("allow", "cells", "--from", "1", "--to", "2", "--reason", "no", code=ExitCode.REFUSED)
    assert "a lower target counter" in text


def test_an_exported_folder_is_one_that_an_instrument_takes(made: Desk) -> None:
    bundle = made.publish("1.0.0")
    facts = made.facts("export", "usb", "--device", DEVICE, "--artifact", str(bundle), "--days", "30")
    assert facts["releases"] == [{"name": "cells", "version": "1.0.0", "counter": 1}]
    assert "cells 1.0.0 for" in made.run("export", "usb", "--device", DEVICE, "--artifact", str(bundle))
    usb = made.root / "usb"
    verifier = Verifier(
        made.root / "home",
        TrustFolder.load(made.root / "trust").anchors(),
        folder_fetch(usb / "image"),
        folder_fetch(usb / "director" / DEVICE),
        SystemClock(),
        device_id=DEVICE,
        offline=True,
    )
    verifier.refresh()
    (found,) = verifier.offered()
    assert sha256_file(usb / "artifacts" / found.sha256) == found.sha256


def decided(root: Path, bundle: Path, verdict: str) -> None:
    """A signed decision record about a bundle, as an evaluation leaves it in the project."""
    payload = {"format_version": 1, "kind": "decision", "bundle": sha256_file(bundle), "verdict": verdict}
    key = SigningKey.load_or_create(root / "keys" / "decision.pem")
    RecordStore(root / "records").put("decision", sign({**payload, "reasons": ["ap50 is .31, below .50"]}, key))


def test_a_fleet_without_a_server_publishes_through_the_same_gate(made: Desk) -> None:
    bundle = tiny_bundle(made.root)
    arguments = ["export", "usb", "--device", DEVICE, "--artifact", str(bundle)]
    assert "trust export --publish" in made.run(*arguments, code=ExitCode.REFUSED)
    assert "no decision record" in made.run(*arguments, "--publish", code=ExitCode.REFUSED)
    decided(made.root, bundle, "failed")
    assert run(["trust", *arguments, "--publish"]) == ExitCode.FINDINGS
    assert "ap50 is .31" in made.capsys.readouterr().err
    assert made.facts("status")["releases"] == []
    assert not (made.root / "usb").exists()


def test_a_bundle_that_passed_is_published_once(made: Desk) -> None:
    bundle = tiny_bundle(made.root)
    decided(made.root, bundle, "passed")
    arguments = ["export", "usb", "--device", DEVICE, "--artifact", str(bundle), "--publish"]
    for _ in range(2):
        (release,) = made.facts(*arguments)["releases"]
        assert release["counter"] == 1
    assert (made.root / "usb" / "artifacts" / sha256_file(bundle)).read_bytes() == bundle.read_bytes()


def test_a_decision_of_somebody_else_publishes_nothing(made: Desk) -> None:
    bundle = tiny_bundle(made.root)
    decided(made.root, bundle, "passed")
    (made.root / "keys" / "decision.pem.pub").write_bytes(SigningKey.load_or_create(made.root / "other.pem").public_pem)
    arguments = ["export", "usb", "--device", DEVICE, "--artifact", str(bundle), "--publish"]
    assert "signature" in made.run(*arguments, code=ExitCode.REFUSED)
