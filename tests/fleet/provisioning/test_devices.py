"""Decisions on devices, groups and tags; a viewer changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from cellfleet.fleet.context import Context
from cellfleet.fleet.provisioning import devices
from cellfleet.fleet.store.models import Device
from support_fleet import World


def test_a_name_that_looks_like_the_id_of_another_device_leads_nobody_astray(world: World) -> None:
    """Such names are refused today; a server of an earlier version took them."""
    mine = world.device("XYZ-001")
    other = world.device(mine.device_id)
    with world.context.sessions() as db:
        for device_id in (mine.device_id, other.device_id):
            db.get_one(Device, device_id).alarms = {"clock": f"the clock of {device_id}"}
        assert devices.find(db, mine.device_id).id == mine.device_id
        assert devices.find(db, other.device_id).id == other.device_id
        assert devices.find(db, "XYZ-001", lock=True).id == mine.device_id
    operator = world.as_role("operator")
    ref = mine.device_id
    assert operator.get(f"/api/v1/devices/{ref}").json()["name"] == "XYZ-001"
    assert operator.get(f"/api/v1/devices/{ref}/counts").status_code == 200
    assert operator.post(f"/api/v1/devices/{ref}/alarms/clear", json={"reason": "seen"}).status_code == 204
    with world.context.reading() as db:
        assert db.get_one(Device, mine.device_id).alarms == {}
        assert db.get_one(Device, other.device_id).alarms != {}
    assert operator.post(f"/api/v1/devices/{other.device_id}/revoke", json={"reason": "gone"}).json()["name"] == ref


def test_an_old_device_whose_name_looks_like_an_id_is_found_by_it(world: World) -> None:
    device = world.device("dev-0123456789ab")
    found = world.as_role("viewer").get("/api/v1/devices/dev-0123456789ab")
    assert found.json()["id"] == device.device_id


def test_a_device_that_was_not_heard_is_silent(world: World, context: Context, later: Callable[[float], None]) -> None:
    world.device("XYZ-001")
    viewer = world.as_role("viewer")
    assert viewer.get("/api/v1/devices/XYZ-001").json()["silent"] is False
    later(context.settings.silent_after_s)
    assert viewer.get("/api/v1/devices/XYZ-001").json()["silent"] is False, "exactly as long as is tolerated"
    later(1)
    assert viewer.get("/api/v1/devices/XYZ-001").json()["silent"] is True
