"""Signing in and out with a browser's cookie."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cellfleet.fleet.context import Context
from cellfleet.fleet.people import accounts
from cellfleet.fleet.people.access import COOKIE
from support_fleet import TestClient, code_of

PASSWORD = "correct horse battery"


@pytest.fixture
def anna(context: Context) -> str:
    with context.sessions() as db:
        return accounts.add(db, context, "person:admin", "anna", "operator", PASSWORD).name


def test_a_session_of_a_browser(client: TestClient, anna: str) -> None:
    response = client.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    assert response.status_code == 201
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    assert client.get("/api/v1/me").json() == {"name": "anna", "role": "operator", "via": "session"}
    without = client.post("/api/v1/groups", json={"name": "pilot"})
    assert (without.status_code, code_of(without)) == (403, "csrf")
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


def test_a_cookie_over_https_is_secure(context: Context, anna: str) -> None:
    from cellfleet.fleet.app import create_app

    context.address = "https://fleet.example"
    with TestClient(create_app(context), base_url="https://fleet.example") as https:
        response = https.post("/api/v1/session", json={"name": anna, "password": PASSWORD})
    assert "secure" in response.headers["set-cookie"].lower()
    assert "max-age" in response.headers["strict-transport-security"]
