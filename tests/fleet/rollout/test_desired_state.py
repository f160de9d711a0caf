"""What an instrument is to have when a deployment is taken away from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cellfleet.fleet.context import Context
from cellfleet.fleet.rollout import desired_state
from cellfleet.fleet.store.models import DeploymentMember, Device, Release
from support_fleet import TestClient, World
from support_rollout import Publisher, instruments, start


@pytest.mark.parametrize(("state", "returns"), [("succeeded", True), ("silent", False), ("rolled-back", False)])
def test_only_what_an_earlier_deployment_brought_for_good_comes_back(
    context: Context,
    publisher: Publisher,
    as_role: Callable[[str], TestClient],
    world: World,
    state: str,
    returns: bool,
) -> None:
    operator, (one,) = as_role("operator"), instruments(world, "pilot", 1)
    release = publisher.publish(operator, "1.0.0")
    number = start(operator, release, "pilot", [{"percent": 100}])
    with context.sessions() as db:
        device = db.get_one(Device, one.device.device_id)
        device.active_sha256 = db.get_one(Release, release).sha256
        db.get_one(DeploymentMember, (number, device.id)).state = state
        db.flush()
        found = desired_state.before(db, [device], number + 1)[device.id]
        assert found["deployment_id"] == (number if returns else None)
        assert desired_state.before(db, [device], number)[device.id] == desired_state.NOTHING, (
            "not what is being taken away"
        )
