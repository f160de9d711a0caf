"""Addresses of parts, and who completes an upload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.config.fleet import FleetSection
from support_fleet import TestClient, TestDevice, World

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9


@pytest.fixture
def fleet_settings(database_url: str) -> FleetSection:
    """Parts of 900 bytes, so that a small file has several."""
    return FleetSection(database=database_url, public_url="http://fleet.test", max_body_mb=0.001, max_artifact_mb=0.01)


@pytest.fixture
def device(world: World) -> TestDevice:
    return world.device("XYZ-001")


@pytest.fixture
def http(device: TestDevice) -> TestClient:
    assert device.http is not None
    return device.http


def announced(content: bytes, **more: Any) -> dict[str, Any]:
    facts = {"kind": "overlay", "experiment": "p1", "frame": "A1_0001", "pin": 1}
    return {**facts, "sha256": sha256_hex(content), "length": len(content), **more}


def path_of(url: str) -> str:
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("http", "fleet.test")
    return f"{parts.path}?{parts.query}"


def put_all(client: TestClient, reply: dict[str, Any], content: bytes) -> None:
    size = reply["part_bytes"]
    for part in reply["parts"]:
        at = (part["number"] - 1) * size
        assert client.put(path_of(part["url"]), content=content[at : at + size]).status_code == 204


def test_addresses_cannot_be_made_up(http: TestClient, client: TestClient, later: Callable[[float], None]) -> None:
    reply = http.post("/api/v1/uploads", json=announced(PNG)).json()
    url = path_of(reply["parts"][0]["url"])
    part = PNG[: reply["part_bytes"]]

    def word(path: str, content: bytes = part) -> tuple[int, str]:
        answer = client.put(path, content=content)
        return answer.status_code, answer.json()["type"].rsplit(":", 1)[-1]

    assert word(url.replace("parts/1", "parts/2")) == (403, "bad-signature")
    assert word(url.replace("expires=1", "expires=2")) == (403, "bad-signature")
    assert word(url[:-1] + ("0" if url[-1] != "0" else "1")) == (403, "bad-signature")
    assert word(url, part[:-1]) == (422, "length-mismatch")
    assert client.put(url.replace(reply["id"], "..%2f" + "0" * 30), content=part).status_code in (404, 422)
    later(3601)
    assert word(url) == (403, "url-expired")


def test_only_its_owner_completes_an_upload(http: TestClient, client: TestClient, world: World) -> None:
    reply = http.post("/api/v1/uploads", json=announced(PNG)).json()
    put_all(client, reply, PNG)
    other = world.device("XYZ-002").http
    assert other is not None
    assert other.post(f"/api/v1/uploads/{reply['id']}/complete").status_code == 404
    assert client.post(f"/api/v1/uploads/{reply['id']}/complete").status_code == 401


@pytest.mark.parametrize("key", ["experiment", "frame"])
@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a\\b", ".hidden", "a\0b", ""])
def test_a_path_in_a_name(http: TestClient, key: str, name: str) -> None:
    assert http.post("/api/v1/uploads", json=announced(PNG, **{key: name})).status_code == 422


def test_an_address_is_good_until_it_expires(
    http: TestClient, client: TestClient, later: Callable[[float], None]
) -> None:
    reply = http.post("/api/v1/uploads", json=announced(PNG)).json()
    later(3600)
    assert client.put(path_of(reply["parts"][0]["url"]), content=PNG[: reply["part_bytes"]]).status_code == 204
