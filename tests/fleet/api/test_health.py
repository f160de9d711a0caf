"""Alive, ready, and which version."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from cellfleet.fleet.context import Context
from support_fleet import TestClient


def test_a_server_that_is_well(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/version").json()["protocol"] == 1


def test_a_server_without_its_database_lives_and_is_not_ready(
    context: Context, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    monkeypatch.setattr(context, "reading", away)
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
