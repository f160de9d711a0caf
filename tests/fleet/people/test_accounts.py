"""Accounts, sign-in, sessions, API tokens, roles."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

import pytest
from argon2 import PasswordHasher

from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access, accounts
from cellfleet.fleet.people.access import COOKIE, ROLES, Person
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.store.models import ApiToken, AuditEvent, User, WebSession
from cellfleet.wire.problem import Problem
from support_fleet import TestClient, World, new_client

PASSWORD = "correct horse battery"


def word_of(response: object) -> str:
    return Problem.model_validate(response.json()).code  # type: ignore[attr-defined]


@pytest.fixture
def anna(context: Context) -> str:
    with context.sessions() as db:
        return accounts.add(db, context, "person:admin", "anna", "operator", PASSWORD).name


def sign_in(client: TestClient, name: str = "anna", password: str = PASSWORD) -> object:
    return client.post("/api/v1/session", json={"name": name, "password": password})


def test_nothing_secret_is_stored(context: Context, anna: str, client: TestClient) -> None:
    sign_in(client)
    with context.reading() as db:
        user, session = db.query(User).one(), db.query(WebSession).one()
        assert user.name == anna
        assert user.password_hash.startswith("$argon2id$")
        assert PASSWORD not in user.password_hash
        assert session.token_sha256 != client.cookies[COOKIE]


def test_passwords_are_hashed_with_the_parameters_of_rfc_9106(
    password_hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (password_hasher.memory_cost, password_hasher.time_cost, password_hasher.parallelism) == (65536, 3, 4)
    monkeypatch.setattr(access, "HASHER", password_hasher)
    stored = access.hash_password(PASSWORD)
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert access.password_matches(stored, PASSWORD)
    assert not access.password_matches(stored, PASSWORD + "x")
    assert not access.password_matches(None, PASSWORD)


def test_somebody_who_is_not_there_takes_as_long_as_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch, password_hasher: PasswordHasher
) -> None:
    checked: list[str] = []

    class Noting(PasswordHasher):
        def verify(self, stored: str | bytes, password: str | bytes) -> Literal[True]:
            checked.append(str(stored))
            return super().verify(stored, password)

    monkeypatch.setattr(access, "HASHER", Noting(time_cost=2, memory_cost=16, parallelism=1))
    assert not access.password_matches(None, PASSWORD)
    assert not access.password_matches(access.hash_password("another one"), PASSWORD)
    assert [c.rsplit("$", 2)[0] for c in checked] == ["$argon2id$v=19$m=16,t=2,p=1"] * 2
    assert password_hasher is not access.HASHER


def test_a_new_password_ends_the_sessions(client: TestClient, anna: str, world: World) -> None:
    sign_in(client)
    old = TestClient(client.app, base_url="http://fleet.test", cookies={COOKIE: client.cookies[COOKIE]})
    client.cookies.clear()
    admin, token = world.as_role("admin"), world.as_role("operator", anna)
    assert old.get("/api/v1/me").status_code == 200
    assert admin.patch("/api/v1/users/anna", json={"role": "operator"}).status_code == 200
    assert old.get("/api/v1/me").status_code == 200, "a role that stays ends nothing"
    assert admin.patch("/api/v1/users/anna", json={"password": "another long one"}).status_code == 200
    assert old.get("/api/v1/me").status_code == 401
    assert token.get("/api/v1/me").status_code == 200, "a token is revoked by itself"
    assert word_of(sign_in(client)) == "wrong-password"
    assert client.post("/api/v1/session", json={"name": anna, "password": "another long one"}).status_code == 201


def test_sessions_from_before_an_account_was_disabled_do_not_come_back(
    client: TestClient, anna: str, world: World
) -> None:
    sign_in(client)
    admin = world.as_role("admin")
    for disabled in (True, False):
        assert admin.patch(f"/api/v1/users/{anna}", json={"disabled": disabled}).status_code == 200
    assert client.get("/api/v1/me").status_code == 401


def test_a_session_of_a_browser(client: TestClient, anna: str) -> None:
    response = client.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    assert response.status_code == 201
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    assert client.get("/api/v1/me").json() == {"name": "anna", "role": "operator", "via": "session"}
    without = client.post("/api/v1/groups", json={"name": "pilot"})
    assert (without.status_code, word_of(without)) == (403, "csrf")
    csrf = {"X-CSRF-Token": response.json()["csrf"]}
    assert client.post("/api/v1/groups", json={"name": "pilot"}, headers=csrf).status_code == 201
    assert client.delete("/api/v1/session", headers=csrf).status_code == 204
    client.cookies.clear()
    assert client.get("/api/v1/me").status_code == 401


def test_a_session_that_was_signed_out_is_over_for_whoever_kept_the_cookie(client: TestClient, anna: str) -> None:
    signed_in = client.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    kept = client.cookies[COOKIE]
    client.delete("/api/v1/session", headers={"X-CSRF-Token": signed_in.json()["csrf"]})
    thief = TestClient(client.app, base_url="http://fleet.test", cookies={COOKIE: kept})
    assert thief.get("/api/v1/me").status_code == 401


def test_sessions_end(client: TestClient, anna: str, context: Context, later: Callable[[float], None]) -> None:
    client.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    later(context.settings.session_s)
    assert client.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize(("name", "password"), [("anna", "wrong"), ("nobody", PASSWORD), ("", "x"), ("a\u0000", "x")])
def test_a_wrong_name_or_password(client: TestClient, anna: str, name: str, password: str) -> None:
    response = client.post("/api/v1/session", json={"name": name, "password": password})
    assert anna
    assert response.status_code in (401, 422)
    assert "set-cookie" not in response.headers


def test_sign_ins_are_throttled(
    client: TestClient, anna: str, context: Context, later: Callable[[float], None]
) -> None:
    words = [word_of(sign_in(client, anna, f"guess {i}")) for i in range(context.settings.max_logins_per_min)]
    assert set(words) == {"wrong-password"}
    refused = client.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    later(60)
    assert client.post("/api/v1/session", json={"name": anna, "password": PASSWORD}).status_code == 201


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


def test_tokens_of_others(world: World) -> None:
    anna, ben, admin = world.as_role("viewer", "anna"), world.as_role("operator", "ben"), world.as_role("admin")
    number = anna.post("/api/v1/tokens", json={"name": "ci", "role": "viewer"}).json()["id"]
    assert ben.delete(f"/api/v1/tokens/{number}").status_code == 403
    assert {t["owner"] for t in ben.get("/api/v1/tokens").json()["items"]} == {"ben"}
    assert {t["owner"] for t in admin.get("/api/v1/tokens").json()["items"]} == {"anna", "ben", "admin"}
    assert admin.delete(f"/api/v1/tokens/{number}").status_code == 204


def test_admins_have_people(world: World, context: Context) -> None:
    admin = world.as_role("admin")
    body = {"name": "carl", "role": "approver", "password": PASSWORD}
    assert admin.post("/api/v1/users", json=body).status_code == 201
    assert word_of(admin.post("/api/v1/users", json=body)) == "name-taken"
    assert word_of(admin.post("/api/v1/users", json=body | {"name": "d", "password": "short"})) == "weak-password"
    assert word_of(admin.post("/api/v1/users", json=body | {"name": "../d"})) == "bad-name"
    assert admin.post("/api/v1/users", json=body | {"name": "d", "role": "king"}).status_code == 422
    assert admin.patch("/api/v1/users/carl", json={"role": "viewer"}).json()["role"] == "viewer"
    assert admin.patch("/api/v1/users/nobody", json={"role": "viewer"}).status_code == 404
    with context.reading() as db:
        assert PASSWORD not in str([(e.reason, e.detail) for e in db.query(AuditEvent)])


def test_a_disabled_person_is_out_at_once(client: TestClient, anna: str, world: World) -> None:
    client.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    token = world.as_role("operator", "anna")
    assert client.get("/api/v1/me").status_code == 200
    world.as_role("admin").patch("/api/v1/users/anna", json={"disabled": True})
    assert client.get("/api/v1/me").status_code == 401
    assert token.get("/api/v1/me").status_code == 401
    assert word_of(sign_in(client)) == "wrong-password"


def test_the_last_admin_stays(world: World) -> None:
    admin = world.as_role("admin", "root")
    assert word_of(admin.patch("/api/v1/users/root", json={"role": "viewer"})) == "last-admin"
    assert word_of(admin.patch("/api/v1/users/root", json={"disabled": True})) == "last-admin"
    world.token("admin", "second")
    assert admin.patch("/api/v1/users/root", json={"role": "viewer"}).status_code == 200


def test_two_admins_cannot_resign_at_once(world: World, context: Context) -> None:
    for name in ("a", "b"):
        world.token("admin", name)
    words: list[str] = []

    def resign(name: str) -> None:
        try:
            with context.sessions() as db:
                accounts.change(db, context, f"person:{name}", name, role="viewer")
            words.append("gone")
        except RequestRefused as e:
            words.append(e.code)

    threads = [threading.Thread(target=resign, args=(n,)) for n in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(words) == ["gone", "last-admin"]


def test_roles_are_in_order() -> None:
    for i, role in enumerate(ROLES):
        person = Person(1, "x", access.lower(role, "admin"), "token", "")
        assert [person.may(r) for r in ROLES] == [j <= i for j in range(4)]
    assert access.lower("admin", "viewer") == "viewer"


def test_a_token_of_nonsense(client: TestClient, context: Context) -> None:
    for header in ("Bearer x", "Bearer cft_\u00e9", "Basic eDp5", "Bearer"):
        response = client.get("/api/v1/me", headers={"Authorization": header.encode("latin-1")})
        assert response.status_code == 401
        assert "www-authenticate" in response.headers
    with context.reading() as db:
        assert db.query(ApiToken).count() == 0


def test_a_cookie_over_https_is_secure(context: Context, anna: str) -> None:
    from cellfleet.fleet.app import create_app

    context.address = "https://fleet.example"
    with TestClient(create_app(context), base_url="https://fleet.example") as https:
        response = https.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    assert "secure" in response.headers["set-cookie"].lower()
    assert "max-age" in response.headers["strict-transport-security"]
