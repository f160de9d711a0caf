"""Accounts and API tokens over the API."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cellfleet.fleet.context import Context
from cellfleet.fleet.people import accounts
from cellfleet.fleet.store.models import AuditEvent, User
from support_fleet import World, code_of, new_client

PASSWORD = "correct horse battery"


@pytest.fixture
def anna(context: Context) -> str:
    with context.sessions() as db:
        return accounts.add(db, context, "person:admin", "anna", "operator", PASSWORD).name


def test_admins_have_people(world: World, context: Context) -> None:
    admin = world.as_role("admin")
    body = {"name": "carl", "role": "approver", "password": PASSWORD}
    assert admin.post("/api/v1/users", json=body).status_code == 201
    assert code_of(admin.post("/api/v1/users", json=body)) == "name-taken"
    assert code_of(admin.post("/api/v1/users", json=body | {"name": "d", "password": "short"})) == "weak-password"
    assert code_of(admin.post("/api/v1/users", json=body | {"name": "../d"})) == "bad-name"
    assert admin.post("/api/v1/users", json=body | {"name": "d", "role": "king"}).status_code == 422
    assert admin.patch("/api/v1/users/carl", json={"role": "viewer"}).json()["role"] == "viewer"
    assert admin.patch("/api/v1/users/nobody", json={"role": "viewer"}).status_code == 404
    with context.reading() as db:
        assert PASSWORD not in str([(e.reason, e.detail) for e in db.query(AuditEvent)])


def test_tokens_of_others(world: World) -> None:
    anna, ben, admin = world.as_role("viewer", "anna"), world.as_role("operator", "ben"), world.as_role("admin")
    number = anna.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"}).json()["id"]
    assert ben.delete(f"/api/v1/tokens/{number}").status_code == 403
    assert {t["owner"] for t in ben.get("/api/v1/tokens").json()["items"]} == {"ben"}
    assert {t["owner"] for t in admin.get("/api/v1/tokens").json()["items"]} == {"anna", "ben", "admin"}
    assert admin.delete(f"/api/v1/tokens/{number}").status_code == 204


def test_an_api_token_has_at_most_the_persons_role(world: World, context: Context) -> None:
    operator = world.as_role("operator", "anna")
    assert operator.post("/api/v1/tokens", json={"name": "ci", "role": "admin"}).status_code == 403
    made = operator.post("/api/v1/tokens", json={"name": "ci", "role": "viewer", "valid_days": 1}).json()
    program = new_client(world.client, made["token"])
    assert program.get("/api/v1/me").json() == {"name": "anna", "role": "viewer", "via": "token"}
    assert program.post("/api/v1/groups", json={"name": "pilot"}).status_code == 403
    with context.sessions() as db:
        db.query(User).filter_by(name="anna").update({"role": "viewer"})
    assert operator.get("/api/v1/me").json()["role"] == "viewer"


def test_an_api_token_ends(world: World, later: Callable[[float], None]) -> None:
    viewer = world.as_role("viewer", "ben")
    made = viewer.post("/api/v1/tokens", json={"name": "ci", "role": "viewer", "valid_days": 1}).json()
    program = new_client(world.client, made["token"])
    later(86399)
    assert program.get("/api/v1/me").status_code == 200
    later(2)
    assert program.get("/api/v1/me").status_code == 401
    other = viewer.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"}).json()
    assert viewer.delete(f"/api/v1/tokens/{other['id']}").status_code == 204
    assert new_client(world.client, other["token"]).get("/api/v1/me").status_code == 401
    assert "cft_" not in viewer.get("/api/v1/tokens").text


def test_changes_of_people_and_tokens_are_in_the_audit(world: World, context: Context) -> None:
    admin = world.as_role("admin")
    body = {"name": "carl", "role": "approver", "password": PASSWORD}
    assert admin.post("/api/v1/users", json=body).status_code == 201
    assert admin.patch("/api/v1/users/carl", json={"role": "viewer", "disabled": True}).status_code == 200
    number = admin.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"}).json()["id"]
    assert admin.delete(f"/api/v1/tokens/{number}").status_code == 204
    assert admin.delete("/api/v1/tokens/999").status_code == 404
    with context.reading() as db:
        events = [(e.actor, e.action, e.subject, e.detail) for e in db.query(AuditEvent).order_by(AuditEvent.seq)]
    assert events == [
        ("person:admin", "person.added", "person:carl", {"role": "approver"}),
        ("person:admin", "person.changed", "person:carl", {"role": "viewer", "disabled": True}),
        ("person:admin", "token.made", f"token:{number}", {"name": "ci", "role": "viewer"}),
        ("person:admin", "token.revoked", f"token:{number}", {"name": "ci"}),
    ]


def test_only_admins_see_and_change_people(world: World) -> None:
    approver = world.as_role("approver")
    assert approver.get("/api/v1/users").status_code == 403
    assert approver.patch("/api/v1/users/approver", json={"role": "admin"}).status_code == 403
    assert [p["name"] for p in world.as_role("admin").get("/api/v1/users").json()["items"]] == ["admin", "approver"]
