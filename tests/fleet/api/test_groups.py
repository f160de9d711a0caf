"""Device groups over the API."""

from __future__ import annotations

from cellfleet.fleet.store.models import AuditEvent
from support_fleet import World, code_of


def test_groups(world: World) -> None:
    operator = world.as_role("operator")
    assert operator.post("/api/v1/groups", json={"name": "pilot", "description": "near us"}).status_code == 201
    assert code_of(operator.post("/api/v1/groups", json={"name": "pilot"})) == "name-taken"
    assert operator.post("/api/v1/groups", json={"name": "../pilot"}).status_code == 422
    world.device("XYZ-001")
    moved = operator.put("/api/v1/devices/XYZ-001/group", json={"group": "pilot"})
    assert moved.json()["group"] == "pilot"
    assert operator.put("/api/v1/devices/XYZ-001/group", json={"group": "none"}).status_code == 404
    listed = operator.get("/api/v1/groups").json()["items"]
    assert [(g["name"], g["devices"], g["description"]) for g in listed] == [("pilot", 1, "near us")]
    assert code_of(operator.delete("/api/v1/groups/pilot")) == "not-empty"
    assert operator.put("/api/v1/devices/XYZ-001/group", json={"group": None}).json()["group"] is None
    assert operator.delete("/api/v1/groups/pilot").status_code == 204
    assert operator.get("/api/v1/groups").json()["items"] == []


def test_a_group_counts_its_accepted_devices(world: World) -> None:
    world.device("XYZ-001", group="pilot")
    world.device("XYZ-002", group="pilot", state="pending")
    world.device("XYZ-003", group="other")
    listed = world.as_role("viewer").get("/api/v1/groups").json()["items"]
    assert [(g["name"], g["devices"]) for g in listed] == [("other", 1), ("pilot", 1)]


def test_changes_of_groups_are_in_the_audit(world: World) -> None:
    operator = world.as_role("operator")
    world.device("XYZ-001")
    operator.post("/api/v1/groups", json={"name": "pilot", "description": "near us"})
    operator.put("/api/v1/devices/XYZ-001/group", json={"group": "pilot"})
    operator.put("/api/v1/devices/XYZ-001/group", json={"group": None})
    assert operator.delete("/api/v1/groups/pilot").status_code == 204
    assert operator.delete("/api/v1/groups/pilot").status_code == 404
    with world.context.reading() as db:
        events = [e.action for e in db.query(AuditEvent).order_by(AuditEvent.seq)]
    assert events == ["group.added", "device.moved", "device.moved", "group.removed"]
