"""An instrument of the commit before features with today's server, and today's instrument with that commit's server."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from support_bundle import tiny_bundle
from support_once import Once
from support_onnx import tiny_spec
from support_pairing import NAME, POLL_S, Pairing, pairing
from support_previous import TODAY, Side, unpack_side
from support_waiting import wait_until

VERSIONS = ("1.0.0", "1.1.0")


@pytest.fixture(scope="session")
def previous(once: Once) -> Side:
    """The old version, ready to run."""
    return Side("previous", once("previous", unpack_side))


@pytest.fixture(scope="session")
def bundles(once: Once) -> dict[str, Path]:
    """Two versions of the tiny network."""
    folder = once("previous-bundles", _build)
    return {version: folder / f"{version}.zip" for version in VERSIONS}


def _build(folder: Path) -> None:
    for version in VERSIONS:
        tiny_bundle(folder / version, tiny_spec(version=version)).rename(folder / f"{version}.zip")


@pytest.fixture(params=["old-device", "old-server"])
def pair(request: pytest.FixtureRequest, previous: Side, tmp_path: Path) -> Any:
    old_device = request.param == "old-device"
    server, device = (TODAY, previous) if old_device else (previous, TODAY)
    with pairing(tmp_path, server, device) as made:
        yield made


def test_the_circle_from_a_claim_to_a_rollback(pair: Pairing, bundles: dict[str, Path]) -> None:
    """Every message goes both ways, and neither side refuses a field of the other."""
    for version, bundle in bundles.items():
        pair.publish(bundle, version)
    with pair.running():
        wait_until(lambda: pair.taken() > 0, "the camera takes frames")
        assert pair.deploy("1.0.0")["state"] == "succeeded"
        refused = pair.deploy("1.1.0", selftest_max_memory_mb=1)
        assert (refused["state"], "MB" in refused["reason"]) == ("refused", True)
        back = pair.deploy("1.1.0", probation_max_memory_mb=1)
        assert (back["state"], "MB" in back["reason"]) == ("rolled-back", True)
        path = f"/api/v1/devices/{NAME}"
        rows = wait_until(
            lambda: [r for r in pair.api.all(f"{path}/results") if r["count"]], "rows arrive", every_s=POLL_S
        )
        frames = [f"{r['experiment']}/{r['frame']}" for r in rows]
        arrived = lambda: any(pair.has(f"{path}/pictures/{f}/thumbnail") for f in frames)  # noqa: E731
        wait_until(arrived, "pictures arrive", every_s=POLL_S)
        state = pair.api.get(path)
        assert not state["alarms"]
        assert back["reason"] in pair.page(f"/devices/{NAME}")
    log = pair.log()
    assert "did not understand" not in log
    assert "refuses" not in log
    with sqlite3.connect(pair.home / "spool" / "spool.db") as spool:
        assert spool.execute("SELECT COUNT(*) FROM dead").fetchone() == (0,)
