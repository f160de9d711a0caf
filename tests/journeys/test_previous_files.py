"""A project, a database and an instrument that the version before features made go on working with today's programs.

`scripts/record_previous.py site` made them: two versions of a model from images to bundles, one release that runs, one
that its self-test refused, and then the same one deferred in the middle of its update, with events that wait for a server.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.config import load_project
from cellfleet.device.scheduling.pins import read_outcomes, read_pins
from cellfleet.device.system.home import Home
from cellfleet.lineage import RecordStore
from support_pairing import NAME, POLL_S, Pairing
from support_previous import SITE, TODAY, unpack
from support_waiting import wait_until

Capture = pytest.CaptureFixture[str]
OLD, NEW = "0.1.0", "0.2.0"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The recording, unpacked as if it had been made here: paths that are recorded name this folder."""
    unpack(SITE, tmp_path)
    recorded = json.loads((tmp_path / "recorded.json").read_bytes())
    for file in (tmp_path / "home" / "cellfleet.toml", *(tmp_path / "out").rglob("*.json")):
        text = file.read_text(encoding="utf-8").replace(recorded["root"], str(tmp_path))
        file.write_text(text, encoding="utf-8")
    with sqlite3.connect(tmp_path / "home" / "spool" / "spool.db") as spool:
        spool.execute("UPDATE pictures SET path = replace(path, ?, ?)", (recorded["root"], str(tmp_path)))
    spool.close()
    _reported_a_minute_ago(tmp_path / "fleet.db")
    return tmp_path


def _reported_a_minute_ago(database: Path) -> None:
    """An instrument that was silent since the recording would halt its deployment."""
    minute_ago = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
    with sqlite3.connect(database) as fleet:
        fleet.execute("UPDATE devices SET last_seen_at = ?", (minute_ago,))
        fleet.execute("UPDATE deployment_members SET offered_at = ? WHERE ended_at IS NULL", (minute_ago,))
    fleet.close()


def facts(capsys: Capture, *argv: str | Path, code: ExitCode = ExitCode.OK) -> Any:
    """What a command prints with ``--json``."""
    capsys.readouterr()
    assert run([*map(str, argv), "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_the_project(site: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    project = load_project(site, environ={})
    assert (project.settings.model.name, project.settings.model.version) == ("discs", NEW)
    assert facts(capsys, "data", "show", "-p", site)["images"] == 16
    store = RecordStore(site / "records")
    assert {kind: len(list(store.all(kind))) for kind in ("training", "data-set", "decision", "run")} == {
        "training": 1, "data-set": 1, "decision": 2, "run": 1,
    }  # fmt: skip
    for version in (OLD, NEW):
        tried = facts(capsys, "bundle", "verify", f"bundles/discs-{version}.bundle.zip")
        assert [v["passed"] for v in tried["variants"].values()] == [True, True]
    (mask,) = (site / "out").glob("*/masks/*.tif")
    chain = facts(capsys, "lineage", mask, "-p", site)
    assert chain["complete"]
    assert [x["problem"] for x in chain["links"]] == [""] * len(chain["links"])
    rows = {p: p.read_bytes() for p in (site / "out").glob("*/rows/*.json")}
    assert rows
    done = facts(capsys, "segment", f"bundles/discs-{OLD}.bundle.zip", "frames-to-segment", "--out", "out")
    assert done["failed"] == []
    assert {p: p.read_bytes() for p in (site / "out").glob("*/rows/*.json")} == rows, "frames that are done stay"


def test_the_home_as_it_lies(site: Path, capsys: Capture) -> None:
    home = Home.at(site / "home")
    status = facts(capsys, "device", "status", home.root, code=ExitCode.FINDINGS)
    assert not status["running"]
    assert (status["state"], status["active"]["label"]) == ("deferred", f"discs {OLD}")
    assert "plate reader" in status["update"]["reason"]
    assert "a long experiment runs" in status["update"]["reason"]
    for experiment in sorted(home.results.iterdir()):
        if (experiment / "pins.jsonl").exists():
            (pin,) = read_pins(experiment)
            assert pin.variant
            assert all(o.pin == pin.number for o in read_outcomes(experiment))


@pytest.fixture
def pairing(site: Path) -> Iterator[Pairing]:
    """Today's server on the old database; the instrument knows its new address and is not started yet."""
    token = json.loads((site / "recorded.json").read_bytes())["token"]
    made = Pairing(site, TODAY, TODAY, token=token)
    with made.serving():
        settings = made.home / "cellfleet.toml"
        lines = settings.read_text(encoding="utf-8").splitlines()
        moved = [f'server = "{made.address}"' if line.startswith("server = ") else line for line in lines]
        settings.write_text("\n".join(moved) + "\n", encoding="utf-8")
        yield made


def test_the_database_and_the_instrument_in_the_middle_of_its_update(pairing: Pairing) -> None:
    api, device = pairing.api, f"/api/v1/devices/{NAME}"
    (refused,) = api.all("/api/v1/deployments/2/members")
    assert "MB" in refused["reason"]
    assert refused["reason"] in pairing.page("/deployments/2"), "a reason that is text alone is shown as it is"
    assert api.get("/api/v1/audit/verify")["whole"]
    known = len(list(api.all(f"{device}/results")))
    with sqlite3.connect(pairing.home / "spool" / "spool.db") as spool:
        assert spool.execute("SELECT COUNT(*) FROM items WHERE kind = 'event'").fetchone()[0] > 5
    spool.close()
    _hold(pairing.home, timedelta(hours=1))
    with pairing.running():
        wait_until(lambda: len(list(api.all(f"{device}/results"))) > known, "waiting events arrive", every_s=POLL_S)
        assert api.get("/api/v1/deployments/3")["state"] == "running", "the lease still holds it back"
        _hold(pairing.home, timedelta(0))
        done = lambda: api.get("/api/v1/deployments/3")["state"] == "succeeded"  # noqa: E731
        wait_until(done, "the update resumes", every_s=POLL_S)
        active = api.get(device)["reported"]["active"]
        assert active["version"] == NEW
    log = pairing.log()
    assert "did not understand" not in log
    assert api.get("/api/v1/audit/verify")["whole"]


def _hold(home: Path, life: timedelta) -> None:
    until = (datetime.now(UTC) + life).isoformat()
    lease = {"holder": "plate reader", "reason": "a long experiment runs", "expires_at": until}
    (home / "inhibit" / "reader.json").write_text(json.dumps(lease), encoding="utf-8")
