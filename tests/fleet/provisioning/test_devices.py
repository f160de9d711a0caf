"""Decisions on devices, groups and tags; a viewer changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cellfleet.fleet.context import Context
from cellfleet.fleet.provisioning import devices
from cellfleet.fleet.store.models import AuditEvent, Device
from cellfleet.wire.problem import Problem
from support_fleet import World


def word_of(response: object) -> str:
    return Problem.model_validate(response.json()).code  # type: ignore[attr-defined]


CHANGES = [
    ("POST", "/api/v1/devices/XYZ-001/accept", {}),
    ("POST", "/api/v1/devices/XYZ-001/reject", {"reason": "no"}),
    ("POST", "/api/v1/devices/XYZ-001/revoke", {"reason": "no"}),
    ("PUT", "/api/v1/devices/XYZ-001/group", {"group": None}),
    ("PUT", "/api/v1/devices/XYZ-001/tags", {"tags": ["a"]}),
    ("POST", "/api/v1/groups", {"name": "pilot"}),
    ("DELETE", "/api/v1/groups/pilot", None),
    ("POST", "/api/v1/users", {"name": "eve", "role": "admin", "password": "long enough to be one"}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_viewer_changes_nothing(world: World, method: str, path: str, body: object) -> None:
    world.device("XYZ-001", state="pending")
    response = world.as_role("viewer").request(method, path, json=body)
    assert response.status_code == 403
    assert word_of(response) == "forbidden"
    with world.context.reading() as db:
        assert db.query(AuditEvent).count() == 0


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_device_is_no_person(world: World, method: str, path: str, body: object) -> None:
    device = world.device("XYZ-001")
    assert device.http is not None
    assert device.http.request(method, path, json=body).status_code == 403


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


def test_decisions(world: World) -> None:
    operator = world.as_role("operator", "anna")
    for name in ("a", "b"):
        world.device(name, state="pending")
    assert operator.post("/api/v1/devices/a/accept", json={"reason": "label checked"}).json()["state"] == "accepted"
    assert operator.post("/api/v1/devices/a/accept", json={}).status_code == 200
    assert word_of(operator.post("/api/v1/devices/a/reject", json={"reason": "x"})) == "accepted"
    assert operator.post("/api/v1/devices/b/reject", json={"reason": "unknown"}).json()["state"] == "rejected"
    assert word_of(operator.post("/api/v1/devices/b/accept", json={})) == "rejected"
    assert word_of(operator.post("/api/v1/devices/b/revoke", json={"reason": "x"})) == "rejected"
    assert operator.post("/api/v1/devices/nobody/accept", json={}).status_code == 404
    with world.context.reading() as db:
        events = [(e.actor, e.action, e.reason) for e in db.query(AuditEvent).order_by(AuditEvent.seq)]
    assert events == [
        ("person:anna", "device.accepted", "label checked"),
        ("person:anna", "device.rejected", "unknown"),
    ]


def test_groups(world: World) -> None:
    operator = world.as_role("operator")
    assert operator.post("/api/v1/groups", json={"name": "pilot", "description": "near us"}).status_code == 201
    assert word_of(operator.post("/api/v1/groups", json={"name": "pilot"})) == "name-taken"
    assert operator.post("/api/v1/groups", json={"name": "../pilot"}).status_code == 422
    world.device("XYZ-001")
    moved = operator.put("/api/v1/devices/XYZ-001/group", json={"group": "pilot"})
    assert moved.json()["group"] == "pilot"
    assert operator.put("/api/v1/devices/XYZ-001/group", json={"group": "none"}).status_code == 404
    listed = operator.get("/api/v1/groups").json()["items"]
    assert [(g["name"], g["devices"], g["description"]) for g in listed] == [("pilot", 1, "near us")]
    assert word_of(operator.delete("/api/v1/groups/pilot")) == "not-empty"
    assert operator.put("/api/v1/devices/XYZ-001/group", json={"group": None}).json()["group"] is None
    assert operator.delete("/api/v1/groups/pilot").status_code == 204
    assert operator.get("/api/v1/groups").json()["items"] == []


def test_tags(world: World) -> None:
    operator = world.as_role("operator")
    world.device("XYZ-001")
    tagged = operator.put("/api/v1/devices/XYZ-001/tags", json={"tags": ["basel", "incubator", "basel"]})
    assert tagged.json()["tags"] == ["basel", "incubator"]
    assert operator.put("/api/v1/devices/XYZ-001/tags", json={"tags": ["no spaces"]}).status_code == 422


def test_lists_come_in_portions_and_by_what_is_asked(world: World) -> None:
    operator = world.as_role("operator")
    for i in range(5):
        world.device(f"XYZ-{i:03}", group="even" if i % 2 == 0 else "odd", state="pending" if i == 4 else "accepted")
    operator.put("/api/v1/devices/XYZ-003/tags", json={"tags": ["t"]})

    def names(**query: str | int) -> list[str]:
        return [d["name"] for d in operator.get("/api/v1/devices", params=query).json()["items"]]

    assert names(limit=2) == ["XYZ-000", "XYZ-001"]
    assert names(limit=2, after="XYZ-001") == ["XYZ-002", "XYZ-003"]
    assert operator.get("/api/v1/devices", params={"limit": 2}).json()["next"] == "XYZ-001"
    assert names(state="pending") == ["XYZ-004"]
    assert names(group="odd") == ["XYZ-001", "XYZ-003"]
    assert names(tag="t") == ["XYZ-003"]
    assert operator.get("/api/v1/devices", params={"group": "nothing"}).status_code == 404
    assert operator.get("/api/v1/devices", params={"limit": 100000}).status_code == 422


def test_a_device_is_found_by_id_and_by_name(world: World) -> None:
    device = world.device("XYZ-001")
    viewer = world.as_role("viewer")
    by_id, by_name = (viewer.get(f"/api/v1/devices/{ref}").json() for ref in (device.device_id, "XYZ-001"))
    assert by_id == by_name
    assert by_id["id"] == device.device_id


def test_a_device_that_was_not_heard_is_silent(world: World, context: Context, later: Callable[[float], None]) -> None:
    world.device("XYZ-001")
    viewer = world.as_role("viewer")
    assert viewer.get("/api/v1/devices/XYZ-001").json()["silent"] is False
    later(context.settings.silent_after_s + 1)
    assert viewer.get("/api/v1/devices/XYZ-001").json()["silent"] is True
