"""Claim tokens over the API: for operators, in portions, without their secrets."""

from __future__ import annotations

import pytest

from support_fleet import TestClient, World


@pytest.fixture
def operator(world: World) -> TestClient:
    world.trust()
    return world.as_role("operator")


def claim_token(operator: TestClient, note: str = "") -> str:
    response = operator.post("/api/v1/claims", json={"note": note})
    assert response.status_code == 201
    return str(response.json()["token"])


def test_a_viewer_makes_no_claims(world: World) -> None:
    world.trust()
    response = world.as_role("viewer").post("/api/v1/claims", json={})
    assert response.status_code == 403
    assert world.as_role("viewer").get("/api/v1/claims").status_code == 403


def test_claims_are_listed_without_their_secrets(operator: TestClient) -> None:
    for note in ("a", "b", "c"):
        claim_token(operator, note)
    first = operator.get("/api/v1/claims", params={"limit": 2}).json()
    assert [c["note"] for c in first["items"]] == ["c", "b"]
    rest = operator.get("/api/v1/claims", params={"limit": 2, "after": first["next"]}).json()
    assert [c["note"] for c in rest["items"]] == ["a"]
    assert rest["next"] == ""
    assert "cfc_" not in str(first)
