"""Talking with the server: tokens, the desired state, reports, and every kind of trouble, each told once."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cellfleet.api_client import ServerRefuses
from cellfleet.device.server.client import ServerClient
from cellfleet.device.server.server_sync import ServerSync
from cellfleet.errors import NetworkError
from cellfleet.ports.http import Response
from cellfleet.wire.reason import english
from cellfleet.wire.states import DesiredState
from simulators.server import URL, problem
from simulators.world import World
from support_device import Releases
from support_waiting import PATIENCE_S, wait_until


@pytest.fixture
def world(tmp_path: Path, releases: Releases) -> World:
    world = World(tmp_path, releases.files)
    world.desire(None)
    return world


def pass_time(world: World, seconds: float) -> None:
    world.clock.at += timedelta(seconds=seconds)
    world.clock.elapsed_s += seconds


def test_an_unchanged_desired_state_costs_little(world: World, releases: Releases) -> None:
    world.desire(releases.old)
    world.run(world.idle)
    before = len(world.server.asked)
    for _ in range(20):
        world.tick()
    asked = world.server.asked[before:]
    assert asked.count("GET /api/v1/device/desired") >= 15
    assert not any("token" in a for a in asked)


@pytest.mark.parametrize("word", ["pending", "rejected", "revoked"])
def test_a_device_that_is_refused_goes_on_working(world: World, word: str) -> None:
    world.server.refusal = word
    for _ in range(100):
        world.tick()
    kind = f"server-refuses-{word}"
    assert world.server_sync.problem == kind
    assert world.sink.incidents() == [kind]
    assert word in world.reporter.report(world.clock.now()).health.problems[-1]
    tokens = [a for a in world.server.asked if "token" in a]
    assert len(tokens) < 12, "it is asked with growing waits"
    for _ in range(100):
        world.tick()
    later = sum("token" in a for a in world.server.asked) - len(tokens)
    assert (later >= 4) == (word == "pending"), "an instrument that waits to be accepted asks often"
    world.server.refusal = ""
    world.run(lambda: world.server_sync.problem == "", ticks=600)
    assert world.sink.incidents() == [kind, "server-back"]


@pytest.mark.parametrize("broken", [500, 502, 429])
def test_a_server_with_trouble_is_asked_with_growing_waits(world: World, releases: Releases, broken: int) -> None:
    world.desire(releases.old)
    world.server.broken = broken
    for _ in range(3600):
        world.server_sync.step()
        pass_time(world, 1)
    assert world.server_sync.problem == "server-away"
    assert 5 < len(world.server.asked) < 25
    world.server.broken = 0
    world.run(world.idle, ticks=700)


def test_a_server_absent_at_start_is_found_later(world: World, releases: Releases) -> None:
    world.server.away = True
    world.desire(releases.old)
    for _ in range(60):
        world.tick(60)
    assert world.active == ""
    world.server.away = False
    world.run(world.idle, seconds=30)
    assert world.active == releases.old.sha256


def test_a_token_that_the_server_forgot_is_renewed(world: World, releases: Releases) -> None:
    world.desire(releases.old)
    world.server_sync.step()
    client = ServerClient(URL, world.identity, world.server, world.clock)
    client.headers()
    world.server.token = "another"
    found, _ = client.desired("")
    assert found == world.server.desired


def test_a_token_is_renewed_before_its_end(world: World) -> None:
    client = ServerClient(URL, world.identity, world.server, world.clock)
    for _ in range(5):
        client.headers()
    assert world.server.asked.count("POST /api/v1/devices/token") == 1
    pass_time(world, 3590)
    client.headers()
    assert world.server.asked.count("POST /api/v1/devices/token") == 2


def test_a_clock_that_is_off_is_told_and_does_not_lock_out(world: World, releases: Releases) -> None:
    world.server.clock_ahead_s = 86_400 * 400
    world.desire(releases.old)
    world.run(lambda: world.server_sync.desired is not None)
    world.tick()
    assert "clock-off" in world.sink.incidents()
    assert world.sink.incidents().count("clock-off") == 1
    assert abs(world.server_sync.clock_offset_s - 86_400 * 400) < 5


def test_an_older_desired_state_does_not_count(world: World, releases: Releases) -> None:
    world.desire(releases.old)
    world.run(lambda: world.server_sync.desired is not None)
    newest = world.server_sync.desired
    assert newest is not None
    world.server.desired = newest.model_copy(update={"generation": 0, "release": releases.new})
    for _ in range(5):
        world.tick()
    assert world.server_sync.desired == newest


def test_a_desired_state_of_another_device_is_refused(world: World, releases: Releases) -> None:
    world.server.desired = DesiredState(device_id="dev-000000000000", generation=9, release=releases.old)
    world.tick()
    assert world.server_sync.desired is None
    assert "dev-000000000000" in english(world.server_sync.problem_reason)


def test_a_defect_does_not_end_the_conversation(
    world: World, releases: Releases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an answer sets off: the instrument asks again."""
    whole, asked = world.server.request, threading.Event()
    failures = [RuntimeError("a defect"), ValueError("another one")]

    def broken(*args: Any, **more: Any) -> Response:
        pass_time(world, 60)
        if failures:
            raise failures.pop()
        asked.set()
        return whole(*args, **more)

    monkeypatch.setattr(world.server, "request", broken)
    world.desire(releases.old)
    talk = threading.Thread(target=world.server_sync.run, args=(0.01,))
    talk.start()
    try:

        def arrived() -> bool:
            pass_time(world, 60)
            return world.server_sync.desired is not None

        wait_until(arrived, "the desired state")
    finally:
        world.server_sync.stop()
        talk.join(PATIENCE_S)
    assert world.server_sync.desired is not None
    assert "a defect" in caplog.text


def test_what_is_no_message_is_told(world: World) -> None:
    world.server.answers["GET /api/v1/device/desired"] = Response(200, {}, b"<html>")
    world.tick()
    world.tick()
    assert world.server_sync.problem == "server-other-version"


def test_a_report_that_is_refused_does_not_keep_the_desired_state_away(world: World, releases: Releases) -> None:
    world.server.answers["PUT /api/v1/device/reported"] = problem(422, "bad-report")
    world.desire(releases.old)
    world.run(world.idle, seconds=60)
    assert world.active == releases.old.sha256
    assert world.server_sync.problem == "server-refuses-bad-report"


def test_the_desired_state_outlives_a_restart(world: World, releases: Releases) -> None:
    world.desire(releases.old)
    world.server_sync.step()
    arrived_at = world.server_sync.arrived_at
    pass_time(world, 100)
    world.server.away = True
    world.boot()
    assert world.server_sync.desired == world.server.desired
    assert world.server_sync.arrived_at == arrived_at


def test_a_fleet_of_one_asks_nobody(world: World) -> None:
    contact = ServerSync(world.home, None, world.clock, retry_s=1.0, incident=world.sink.put)
    contact.step()
    assert (contact.desired, contact.problem, contact.clock_offset_s) == (None, "", 0.0)


def test_errors_of_the_client(world: World) -> None:
    client = ServerClient(URL, world.identity, world.server, world.clock)
    world.server.broken = 404
    with pytest.raises(ServerRefuses, match="404") as found:
        client.headers()
    assert "address" in found.value.hint
    world.server.broken = 503
    with pytest.raises(NetworkError, match="503"):
        client.headers()
