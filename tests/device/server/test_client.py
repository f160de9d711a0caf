"""The fleet server's API as an instrument uses it: what it announces, and which fields it sends to which server."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellfleet.api_client import ServerRefuses
from cellfleet.device.server.client import ServerClient
from cellfleet.wire.features import ANNOUNCEMENT, HEADER
from cellfleet.wire.states import ReportedState
from simulators.server import URL
from simulators.world import World
from support_device import Releases
from support_features import FEATURE, NewerHealth, NewerReport


@pytest.fixture
def world(tmp_path: Path, releases: Releases) -> World:
    return World(tmp_path, releases.files)


@pytest.fixture
def client(world: World) -> ServerClient:
    return ServerClient(URL, world.identity, world.server, world.clock)


@pytest.fixture
def report(world: World) -> NewerReport:
    old = world.reporter.report(world.clock.now()).model_dump()
    return NewerReport.model_validate({**old, "health": NewerHealth(temperature_c=37.5)})


def test_a_server_of_before_gets_the_report_that_it_knows(
    world: World, client: ServerClient, report: NewerReport
) -> None:
    world.server.features = None
    client.report(report)
    assert type(world.server.reports[-1]) is ReportedState
    assert world.server.reports[-1].health.camera == report.health.camera


def test_a_server_that_announces_a_feature_gets_it_with_the_first_report(
    world: World, client: ServerClient, report: NewerReport
) -> None:
    world.server.features, world.server.report_kind = f"other,{FEATURE}", NewerReport
    client.report(report)
    assert world.server.reports == [report]


def test_an_older_replica_refuses_once_and_gets_the_old_form_then(
    world: World, client: ServerClient, report: NewerReport
) -> None:
    world.server.features, world.server.report_kind = FEATURE, NewerReport
    client.report(report)
    world.server.features, world.server.report_kind = None, ReportedState
    with pytest.raises(ServerRefuses, match="temperature_c"):
        client.report(report)
    client.report(report)
    assert len(world.server.reports) == 2


def test_every_request_announces_what_the_instrument_understands(world: World, client: ServerClient) -> None:
    world.desire(None)
    client.desired("")
    assert len(world.server.sent_headers) == 2, "a token, and the desired state"
    assert [h[HEADER] for h in world.server.sent_headers] == [ANNOUNCEMENT[HEADER]] * 2
