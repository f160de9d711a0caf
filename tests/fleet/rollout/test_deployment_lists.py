"""What API and pages show of deployments agrees with the rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cellfleet.fleet.context import Context
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.rollout import deployment_lists, deployments
from cellfleet.fleet.rollout.reconcile import reconcile
from cellfleet.fleet.rollout.rules import target_size
from cellfleet.wire.rollout import DeploymentRequest
from support_fleet import TestClient, World
from support_rollout import Publisher, instruments, person, start

PHASES = [{"count": 5}, {"percent": 20}, {"percent": 100, "soak_s": 60}]


@pytest.fixture
def operator(as_role: Callable[[str], TestClient]) -> TestClient:
    return as_role("operator")


def phases(context: Context, number: int) -> list[deployment_lists.PhaseView]:
    with context.reading() as db:
        return deployment_lists.phases(db, deployment_lists.view(db, number))


def test_the_shares_of_phases_follow_the_rules_and_add_up(
    context: Context, publisher: Publisher, operator: TestClient, world: World
) -> None:
    pilot = instruments(world, "pilot", 10)
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", PHASES)
    assert [p.share for p in phases(context, number)] == [5, 0, 5], "phase 2 is never smaller than phase 1"
    request = DeploymentRequest.model_validate({"release_id": 1, "group": "pilot", "phases": PHASES})
    assert [target_size(request, i, 10) for i in range(3)] == [5, 5, 10]
    for i in pilot[:5]:
        i.succeeds(context)
    found = phases(context, number)
    assert [(p.share, p.offered, p.state) for p in found] == [(5, 5, "done"), (0, 0, "done"), (5, 5, "now")]


def test_shares_add_up_when_the_group_has_grown(
    context: Context, publisher: Publisher, operator: TestClient, world: World
) -> None:
    pilot = instruments(world, "pilot", 2)
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 50}, {"percent": 100}])
    pilot[0].succeeds(context)
    for name in ("XYZ-101", "XYZ-102"):
        world.device(name, group="pilot")
    reconcile(context, number)
    assert [p.share for p in phases(context, number)] == [1, 3]


def test_instruments_that_a_halt_withdrew_are_no_part_of_a_phase(
    context: Context, publisher: Publisher, operator: TestClient, world: World
) -> None:
    instruments(world, "pilot", 3)
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"count": 1}, {"percent": 100}])
    with context.sessions() as db:
        deployments.halt(db, context, person("operator"), number, "a smell")
    assert [(p.share, p.offered, p.state) for p in phases(context, number)] == [(1, 0, "bad"), (2, 0, "")]


def test_lists_keep_to_their_filters(
    context: Context, publisher: Publisher, operator: TestClient, world: World
) -> None:
    for group in ("pilot", "europe"):
        world.device(f"{group}-1", group=group)
    release = [publisher.publish(operator, v) for v in ("1.0.0", "1.1.0")]
    first = start(operator, release[0], "pilot", [{"percent": 100}])
    with context.sessions() as db:
        deployments.cancel(db, context, person("operator"), first, "a mistake")
    second, third = (start(operator, release[1], g, [{"percent": 100}]) for g in ("pilot", "europe"))
    filters: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [third, second, first]),
        ({"group": "pilot"}, [second, first]),
        ({"release_id": release[0]}, [first]),
        ({"states": ("cancelled",)}, [first]),
        ({"states": ("running", "halted")}, [third, second]),
        ({"group": "pilot", "states": ("running",)}, [second]),
    ]
    with context.reading() as db:
        for only, expected in filters:
            assert [v.deployment.id for v in deployment_lists.views(db, **only)] == expected, only
            assert deployment_lists.count(db, **only) == len(expected), only
        assert [v.deployment.id for v in deployment_lists.views(db, before=third, limit=1)] == [second]
        assert [v.deployment.id for v in deployment_lists.views(db, offset=1, limit=1)] == [second]
        with pytest.raises(RequestRefused) as refused:
            deployment_lists.view(db, third + 1)
        assert refused.value.status == 404


def test_members_come_by_name_or_the_worst_first(
    context: Context, publisher: Publisher, operator: TestClient, world: World
) -> None:
    pilot = instruments(world, "pilot", 4)
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 100, "max_failures": 2}])
    pilot[0].succeeds(context)
    pilot[2].moves(context, "idle", "refused", "golden frame g1: AP@0.5 is 0.03")
    with context.reading() as db:
        assert [m.name for m in deployment_lists.members(db, number)] == ["XYZ-001", "XYZ-002", "XYZ-003", "XYZ-004"]
        worst = deployment_lists.members(db, number, worst_first=True)
        assert [m.name for m in worst] == ["XYZ-003", "XYZ-002", "XYZ-004", "XYZ-001"]
        assert [m.name for m in deployment_lists.members(db, number, states=("succeeded", "refused"))] == [
            "XYZ-001",
            "XYZ-003",
        ]
        assert [m.name for m in deployment_lists.members(db, number, after="XYZ-002", limit=1)] == ["XYZ-003"]
        view = deployment_lists.view(db, number)
        assert (view.total, view.succeeded, view.failures) == (4, 1, 1)
