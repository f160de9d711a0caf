"""Devices over the API: decisions, tags, lists in portions; a viewer changes nothing."""

from __future__ import annotations

import pytest

from cellfleet.fleet.store.models import AuditEvent, DeviceToken
from support_fleet import World, code_of

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
    assert code_of(response) == "forbidden"
    with world.context.reading() as db:
        assert db.query(AuditEvent).count() == 0


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_device_is_no_person(world: World, method: str, path: str, body: object) -> None:
    device = world.device("XYZ-001")
    assert device.http is not None
    assert device.http.request(method, path, json=body).status_code == 403


def test_decisions(world: World) -> None:
    operator = world.as_role("operator", "anna")
    for name in ("a", "b"):
        world.device(name, state="pending")
    assert operator.post("/api/v1/devices/a/accept", json={"reason": "label checked"}).json()["state"] == "accepted"
    assert operator.post("/api/v1/devices/a/accept", json={}).status_code == 200
    assert code_of(operator.post("/api/v1/devices/a/reject", json={"reason": "x"})) == "accepted"
    assert operator.post("/api/v1/devices/b/reject", json={"reason": "unknown"}).json()["state"] == "rejected"
    assert code_of(operator.post("/api/v1/devices/b/accept", json={})) == "rejected"
    assert code_of(operator.post("/api/v1/devices/b/revoke", json={"reason": "x"})) == "rejected"
    assert operator.post("/api/v1/devices/nobody/accept", json={}).status_code == 404
    with world.context.reading() as db:
        events = [(e.actor, e.action, e.reason) for e in db.query(AuditEvent).order_by(AuditEvent.seq)]
    assert events == [
        ("person:anna", "device.accepted", "label checked"),
        ("person:anna", "device.rejected", "unknown"),
    ]


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


def test_as_many_tags_as_are_taken(world: World) -> None:
    world.device("XYZ-001")
    operator, tags = world.as_role("operator"), [f"t{i:02}" for i in range(32)]
    assert operator.put("/api/v1/devices/XYZ-001/tags", json={"tags": tags}).json()["tags"] == tags
    assert operator.put("/api/v1/devices/XYZ-001/tags", json={"tags": [*tags, "one-more"]}).status_code == 422


def test_a_revoked_device_is_out_of_its_group_and_its_tokens_end(world: World) -> None:
    device, operator = world.device("XYZ-001", group="pilot"), world.as_role("operator")
    assert device.http is not None
    assert device.http.get("/api/v1/device/desired").status_code == 200
    revoked = operator.post("/api/v1/devices/XYZ-001/revoke", json={"reason": "sold"}).json()
    assert (revoked["state"], revoked["group"]) == ("revoked", None)
    assert device.http.get("/api/v1/device/desired").status_code in (401, 403)
    assert operator.put("/api/v1/devices/XYZ-001/group", json={"group": "pilot"}).status_code == 409
    with world.context.reading() as db:
        assert db.query(DeviceToken).count() == 0
