"""Requests for deployments that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support_fleet import TestClient, World
from support_rollout import (
    Instrument,
    Publisher,
    instruments,
    start,
)

TWO = [{"count": 1}, {"percent": 100}]


@pytest.fixture
def operator(as_role: Callable[[str], TestClient]) -> TestClient:
    return as_role("operator")


@pytest.fixture
def pilot(world: World) -> list[Instrument]:
    return instruments(world, "pilot", 3)


@pytest.mark.usefixtures("pilot")
def test_bad_requests(publisher: Publisher, as_role: Callable[[str], TestClient], world: World) -> None:
    operator = as_role("operator")
    release = publisher.publish(operator, "1.0.0")
    world.group("nobody")

    def word(body: dict[str, Any], http: TestClient = operator) -> tuple[int, str]:
        answer = http.post("/api/v1/deployments", json={"release_id": release, "group": "pilot", **body})
        return answer.status_code, answer.json()["type"].rsplit(":", 1)[-1]

    assert word({}, as_role("viewer")) == (403, "forbidden")
    assert word({"group": "nobody"}) == (409, "empty-group")
    assert word({"group": "unknown"}) == (404, "not-found")
    assert word({"release_id": 99}) == (404, "not-found")
    assert word({"agent": {"probation_frmes": 3}}) == (422, "agent-settings")
    assert word({"agent": {"probation_frames": "many"}}) == (422, "agent-settings")
    assert word({"phases": [{"count": 1, "percent": 5}]})[0] == 422
    start(operator, release, "pilot", TWO)
    assert word({}) == (409, "group-busy")
    assert operator.post("/api/v1/deployments/77/halt", json={}).status_code == 404
