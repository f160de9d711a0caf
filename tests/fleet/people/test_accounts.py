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
from support_fleet import TestClient, World, code_of

PASSWORD = "correct horse battery"


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
    assert code_of(sign_in(client)) == "wrong-password"
    assert client.post("/api/v1/session", json={"name": anna, "password": "another long one"}).status_code == 201


def test_sessions_from_before_an_account_was_disabled_do_not_come_back(
    client: TestClient, anna: str, world: World
) -> None:
    sign_in(client)
    admin = world.as_role("admin")
    for disabled in (True, False):
        assert admin.patch(f"/api/v1/users/{anna}", json={"disabled": disabled}).status_code == 200
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
    words = [code_of(sign_in(client, anna, f"guess {i}")) for i in range(context.settings.max_logins_per_min)]
    assert set(words) == {"wrong-password"}
    refused = client.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    later(60)
    assert client.post("/api/v1/session", json={"name": anna, "password": PASSWORD}).status_code == 201


def test_a_disabled_person_is_out_at_once(client: TestClient, anna: str, world: World) -> None:
    client.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    token = world.as_role("operator", "anna")
    assert client.get("/api/v1/me").status_code == 200
    world.as_role("admin").patch("/api/v1/users/anna", json={"disabled": True})
    assert client.get("/api/v1/me").status_code == 401
    assert token.get("/api/v1/me").status_code == 401
    assert code_of(sign_in(client)) == "wrong-password"


def test_the_last_admin_stays(world: World) -> None:
    admin = world.as_role("admin", "root")
    assert code_of(admin.patch("/api/v1/users/root", json={"role": "viewer"})) == "last-admin"
    assert code_of(admin.patch("/api/v1/users/root", json={"disabled": True})) == "last-admin"
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


def test_a_password_of_the_least_length_is_taken(context: Context) -> None:
    least = "x" * accounts.LEAST_PASSWORD
    with context.sessions() as db:
        assert accounts.add(db, context, "person:admin", "ben", "viewer", least).name == "ben"
        with pytest.raises(RequestRefused) as refused:
            accounts.add(db, context, "person:admin", "carl", "viewer", least[:-1])
    assert refused.value.code == "weak-password"


def test_signing_in_and_out_is_in_the_audit(client: TestClient, anna: str, context: Context) -> None:
    sign_in(client, anna, "a wrong one")
    csrf = client.post("/api/v1/session", json={"name": anna, "password": PASSWORD}).json()["csrf"]
    assert client.delete("/api/v1/session", headers={"X-CSRF-Token": csrf}).status_code == 204
    with context.reading() as db:
        events = [(e.action, e.subject) for e in db.query(AuditEvent).order_by(AuditEvent.seq)]
    assert events == [
        ("person.added", "person:anna"), ("session.refused", "person:anna"), ("session.opened", "person:anna"),
        ("session.closed", "person:anna"),
    ]  # fmt: skip


def test_sign_ins_are_limited_by_name_and_by_address(client: TestClient, context: Context) -> None:
    per_min = context.settings.max_logins_per_min
    names = [f"guess-{i}" for i in range(per_min + 1)]
    codes = [code_of(sign_in(client, name)) for name in names]
    assert codes == ["wrong-password"] * per_min + ["too-many-requests"], "one address, many names"
    other = [f"10.0.0.{i}" for i in range(per_min + 1)]
    found: list[str] = []
    for address in other:
        with pytest.raises(RequestRefused) as refused:
            accounts.sign_in(context, "anna", "a guess", address)
        found.append(refused.value.code)
    assert found == ["wrong-password"] * per_min + ["too-many-requests"], "one name, many addresses"
