"""Releases over the API: lists and roles."""

from __future__ import annotations

from collections.abc import Callable

from support_fleet import TestClient
from support_rollout import Publisher

As = Callable[[str], TestClient]


def test_lists_come_in_portions(publisher: Publisher, as_role: As) -> None:
    http = as_role("operator")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publisher.publish(http, version)
    first = http.get("/api/v1/releases?limit=2").json()
    rest = http.get(f"/api/v1/releases?limit=2&after={first['next']}").json()
    versions = [x["release"]["version"] for x in first["items"] + rest["items"]]
    assert (versions, rest["next"]) == (["1.2.0", "1.1.0", "1.0.0"], "")
    assert http.get("/api/v1/releases?name=other").json()["items"] == []


def test_roles(publisher: Publisher, as_role: As, client: TestClient) -> None:
    body = publisher.request("1.0.0")
    assert as_role("viewer").post("/api/v1/releases", json=body).status_code == 403
    assert client.post("/api/v1/releases", json=body).status_code == 401
    assert client.get("/api/v1/releases").status_code == 401
