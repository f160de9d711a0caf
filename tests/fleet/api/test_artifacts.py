"""Artifacts go up in parts and are read in ranges, by people and by devices that were offered them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.config.fleet import FleetSection
from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import Artifact
from support_fleet import TestClient


@pytest.fixture
def fleet_settings(database_url: str) -> FleetSection:
    """Parts of 900 bytes, so that a small file has several."""
    return FleetSection(database=database_url, public_url="http://fleet.test", max_body_mb=0.001, max_artifact_mb=0.01)


def path_of(url: str) -> str:
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("http", "fleet.test")
    return f"{parts.path}?{parts.query}"


def put_all(client: TestClient, reply: dict[str, Any], content: bytes) -> None:
    size = reply["part_bytes"]
    for part in reply["parts"]:
        at = (part["number"] - 1) * size
        assert client.put(path_of(part["url"]), content=content[at : at + size]).status_code == 204


def test_an_artifact_goes_up_and_is_read_in_ranges(
    context: Context, client: TestClient, as_role: Callable[[str], TestClient]
) -> None:
    content = bytes(range(256)) * 30
    operator = as_role("operator")
    reply = operator.post("/api/v1/artifacts", json={"sha256": sha256_hex(content), "length": len(content)}).json()
    put_all(client, reply, content)
    assert operator.post(f"/api/v1/uploads/{reply['id']}/complete").status_code == 204
    with context.reading() as db:
        assert db.query(Artifact).one().length == len(content)
    url = f"/api/v1/artifacts/{sha256_hex(content)}"
    whole = operator.get(url)
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, content, "bytes")
    etag = whole.headers["etag"]
    part = operator.get(url, headers={"Range": "bytes=100-199", "If-Range": etag})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    changed = operator.get(url, headers={"Range": "bytes=100-199", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, content)
    beyond = operator.get(url, headers={"Range": f"bytes={len(content)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
    head = operator.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")
    assert operator.get("/api/v1/artifacts/" + "0" * 64).status_code == 404
