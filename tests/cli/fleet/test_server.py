"""``cellfleet fleet`` against a real server on loopback: sign in, provision, audit; errors with words."""

from __future__ import annotations

import io
import json
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.fleet.client import Credentials
from cellfleet.cli.fleet.server import first_steps
from cellfleet.cli.main import run
from cellfleet.config import load_project
from cellfleet.fleet.context import Context, open_context
from cellfleet.fleet.serve import Stop, serve
from cellfleet.fleet.store.models import TrustFile
from cellfleet.trust import TrustFolder
from support_fleet import TestDevice
from support_waiting import PATIENCE_S

PASSWORD = "correct horse battery"
Command = Callable[..., Any]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    for name in ("CELLFLEET_SERVER", "CELLFLEET_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "cellfleet.toml").write_text("[fleet]\nport = 0\ntick_s = 3600\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def context(project: Path) -> Iterator[Context]:
    opened = open_context(load_project(project))
    with opened.sessions() as db:
        for path in ("image/1.root.json", "director/1.root.json"):
            db.add(TrustFile(path=path, content=b"{}", updated_at=opened.clock.now()))
    yield opened
    opened.close()


@pytest.fixture
def server(context: Context) -> Iterator[str]:
    stop, ready, addresses = Stop(), threading.Event(), []

    def on_ready(address: str) -> None:
        addresses.append(address)
        ready.set()

    thread = threading.Thread(target=serve, args=(context,), kwargs={"stop": stop, "on_ready": on_ready})
    thread.start()
    assert ready.wait(PATIENCE_S)
    yield addresses[0]
    stop.ask()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture
def fleet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``cellfleet fleet ...``: its exit code with ``code=``, else the JSON that it prints."""

    def command(*arguments: str, code: int = 0, stdin: str = "", plain: bool = False) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        found = run(["fleet", *arguments, *(() if plain else ("--json",))])
        captured = capsys.readouterr()
        assert found == code, captured.err
        if code or plain:
            return captured.out + captured.err
        return json.loads(captured.out)

    return command


@pytest.fixture
def admin(fleet: Command, context: Context) -> str:
    assert context.root.is_dir()
    fleet("user", "add", "anna", "--role", "admin", "--password-stdin", stdin=f"{PASSWORD}\n")
    return "anna"


def test_from_the_first_admin_to_an_accepted_device(fleet: Command, admin: str, server: str) -> None:
    signed_in = fleet("login", admin, "--server", server, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert signed_in["role"] == "admin"
    assert stat.S_IMODE(Credentials.path().stat().st_mode) == 0o600
    assert PASSWORD not in Credentials.path().read_text(encoding="utf-8")
    fleet("group", "add", "pilot", "--description", "near us")
    token = fleet("claim", "--note", "room 4")["token"]
    from cellfleet.cli.fleet.client import FleetClient

    FleetClient(server).post("/api/v1/devices/claim", TestDevice("XYZ-001").claim(token))
    assert [d["state"] for d in fleet("devices")] == ["pending"]
    assert fleet("accept", "XYZ-001", "--group", "pilot")[0]["group"] == "pilot"
    assert fleet("tag", "XYZ-001", "basel")[0]["tags"] == ["basel"]
    assert fleet("devices", "XYZ-001")["tags"] == ["basel"]
    assert "XYZ-001" in fleet("devices", plain=True)
    assert "basel" in fleet("devices", "XYZ-001", plain=True)
    assert [g["devices"] for g in fleet("group", "list")] == [1]
    assert fleet("group", "put", "XYZ-001", "--group", "")[0]["group"] is None
    assert fleet("group", "remove", "pilot") == {"removed": "pilot"}
    assert fleet("revoke", "XYZ-001", "--reason", "sold")[0]["state"] == "revoked"
    actions = [e["action"] for e in fleet("audit", "list")]
    assert actions[:3] == ["device.revoked", "group.removed", "device.moved"]
    assert fleet("audit", "verify")["whole"] is True


def test_tokens(fleet: Command, admin: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet("login", admin, "--server", server, "--password-stdin", stdin=f"{PASSWORD}\n")
    made = fleet("token", "add", "ci", "--role", "viewer", "--valid-days", "7")
    assert {t["name"] for t in fleet("token", "list")} >= {"ci"}
    monkeypatch.setenv("CELLFLEET_API_TOKEN", made["token"])
    assert "the role operator is needed" in fleet("claim", code=3)
    monkeypatch.delenv("CELLFLEET_API_TOKEN")
    assert fleet("token", "revoke", str(made["id"])) == {"revoked": made["id"]}
    monkeypatch.setenv("CELLFLEET_API_TOKEN", made["token"])
    assert "not signed in" in fleet("devices", code=3)


def test_people_on_the_database(fleet: Command, admin: str) -> None:
    made = fleet("user", "add", "ben", "--role", "operator", "--password-stdin", "--token", stdin=f"{PASSWORD}\n")
    assert made["token"].startswith("cft_")
    assert fleet("user", "change", "ben", "--role", "viewer")["role"] == "viewer"
    assert fleet("user", "change", "ben", "--disable")["disabled"] is True
    assert {u["name"]: u["role"] for u in fleet("user", "list")} == {admin: "admin", "ben": "viewer"}
    assert "last admin" in fleet("user", "change", admin, "--role", "viewer", code=3)
    assert "already" in fleet("user", "add", "ben", "--password-stdin", code=3, stdin=f"{PASSWORD}\n")
    assert "at least" in fleet("user", "add", "carl", "--password-stdin", code=3, stdin="short\n")
    assert "no terminal" in fleet("user", "add", "carl", code=2)


def test_audit_verify_finds_what_was_changed_by_sql(fleet: Command, admin: str, context: Context) -> None:
    assert admin
    assert fleet("audit", "verify", "--local")["whole"] is True
    with context.database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_events_no_UPDATE"))
        connection.execute(text("UPDATE audit_events SET actor = 'person:eve' WHERE seq = 1"))
    assert "broken at event 1" in fleet("audit", "verify", "--local", code=1, plain=True)


def test_audit_verify_makes_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cellfleet.toml").touch()
    assert run(["fleet", "audit", "verify", "--local", "-p", str(tmp_path)]) == ExitCode.STORAGE
    assert "is not a database of a fleet server" in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["cellfleet.toml"]


def test_a_server_that_cannot_sign_says_so_and_its_database_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "long enough to be one"
    TrustFolder.init(tmp_path / "trust", lambda _: secret, datetime(2026, 3, 2, tzinfo=UTC))
    (tmp_path / "cellfleet.toml").touch()
    context = open_context(load_project(tmp_path))
    monkeypatch.setenv("CELLFLEET_ONLINE_PASSPHRASE", "another one than that")
    assert "cannot sign metadata" in first_steps(context)[-1]
    monkeypatch.setenv("CELLFLEET_ONLINE_PASSPHRASE", secret)
    assert [line for line in first_steps(context) if "sign metadata" in line] == []
    assert stat.S_IMODE((tmp_path / "fleet.db").stat().st_mode) == 0o600
    context.close()


def test_a_port_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cellfleet.toml").touch()
    for port in ("99999", "-5"):
        assert run(["fleet", "serve", "-p", str(tmp_path), "--port", port]) == ExitCode.USAGE


def test_errors_with_words(fleet: Command, admin: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no fleet server is set" in fleet("devices", code=2)
    assert "no API token" in fleet("devices", "--server", server, code=2)
    wrong = fleet("login", admin, "--server", server, "--password-stdin", code=3, stdin="not it\n")
    assert "wrong" in wrong
    assert "not an address" in fleet("login", admin, "--server", "nonsense", "--password-stdin", code=2, stdin="x\n")
    monkeypatch.setenv("CELLFLEET_API_TOKEN", "cft_unknown")
    away = fleet("devices", "--server", "http://127.0.0.1:9", code=3)
    assert "127.0.0.1:9" in away
    assert "hint" in away
    Credentials.path().parent.mkdir(parents=True)
    Credentials.path().write_text("{", encoding="utf-8")
    assert "sign in again" in fleet("devices", code=2)
