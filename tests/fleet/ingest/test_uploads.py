"""Files in parts, and bytes that are read in ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.config.fleet import FleetSection
from cellfleet.fleet import ticker
from cellfleet.fleet.byte_ranges import range_of
from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import uploads
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.store.models import Picture, Upload
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


def send(http: TestClient, client: TestClient, content: bytes, **more: Any) -> None:
    reply = http.post("/api/v1/uploads", json=announced(content, **more)).json()
    if not reply["done"]:
        put_all(client, reply, content)
        assert http.post(f"/api/v1/uploads/{reply['id']}/complete").status_code == 204


PICTURE = "/api/v1/devices/XYZ-001/pictures/p1/A1_0001/overlay"


def test_a_picture_goes_up_and_comes_down(
    context: Context, http: TestClient, client: TestClient, as_role: Callable[[str], TestClient]
) -> None:
    send(http, client, PNG)
    viewer = as_role("viewer")
    answer = viewer.get(PICTURE)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "image/png", PNG)
    assert viewer.get(PICTURE, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert http.post("/api/v1/uploads", json=announced(PNG, frame="A1_0002")).json()["done"] is True
    assert viewer.get(PICTURE.replace("0001", "0002")).content == PNG
    assert client.get(PICTURE).status_code == 401
    assert viewer.get(PICTURE.replace("overlay", "mask")).status_code == 404
    assert viewer.get(PICTURE.replace("A1_0001", "..%2f..%2fsecret")).status_code in (404, 422)
    assert not list((context.blobs.folder / "uploads").iterdir()), "no part is left"


def test_a_higher_pin_takes_the_place_and_a_lower_one_does_not(
    context: Context, http: TestClient, client: TestClient
) -> None:
    for pin, content in ((2, PNG + b"two"), (1, PNG + b"one"), (3, b"not a picture")):
        send(http, client, content, pin=pin)
        if pin == 1:
            with context.reading() as db:
                assert db.query(Picture).one().sha256 == sha256_hex(PNG + b"two")
    with context.reading() as db:
        row = db.query(Picture).one()
        assert (row.pin, row.sha256, row.media_type) == (3, sha256_hex(b"not a picture"), "application/octet-stream")


def test_it_goes_on_where_it_stopped(http: TestClient, client: TestClient) -> None:
    first = http.post("/api/v1/uploads", json=announced(PNG)).json()
    assert [p["number"] for p in first["parts"]] == [1, 2, 3]
    put_all(client, {**first, "parts": first["parts"][1:2]}, PNG)
    missing = http.post(f"/api/v1/uploads/{first['id']}/complete")
    assert (missing.status_code, missing.json()["detail"]) == (409, "2 of 3 parts are missing: 1, 3")
    again = http.post("/api/v1/uploads", json=announced(PNG)).json()
    assert (again["id"], [p["number"] for p in again["parts"]]) == (first["id"], [1, 3])
    put_all(client, again, PNG)
    for _ in range(2):
        assert http.post(f"/api/v1/uploads/{first['id']}/complete").status_code == 204


def test_wrong_bytes_are_not_kept(context: Context, http: TestClient, client: TestClient) -> None:
    reply = http.post("/api/v1/uploads", json=announced(PNG)).json()
    put_all(client, reply, PNG[::-1])
    answer = http.post(f"/api/v1/uploads/{reply['id']}/complete")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:cellfleet:problem:digest-mismatch")
    assert not context.blobs.has(sha256_hex(PNG))
    put_all(client, http.post("/api/v1/uploads", json=announced(PNG)).json(), PNG)
    assert http.post(f"/api/v1/uploads/{reply['id']}/complete").status_code == 204


def test_sizes(http: TestClient, as_role: Callable[[str], TestClient]) -> None:
    assert http.post("/api/v1/uploads", json=announced(PNG, length=10**12)).status_code == 413
    assert http.post("/api/v1/uploads", json=announced(PNG, length=0)).status_code == 422
    body = {"sha256": "0" * 64, "length": 20_000}
    assert as_role("operator").post("/api/v1/artifacts", json=body).status_code == 413
    assert as_role("viewer").post("/api/v1/artifacts", json={**body, "length": 5}).status_code == 403
    assert http.post("/api/v1/artifacts", json={**body, "length": 5}).status_code == 403


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", (0, 10)), ("bytes=90-", (90, 100)), ("bytes=-5", (95, 100)), ("bytes=-500", (0, 100)),
        ("bytes=50-999", (50, 100)), ("", None), ("bytes=-", None), ("bytes=5-2", None), ("bytes=0-1,5-6", None),
        ("lines=1-2", None), ("bytes=a-b", None),
    ],
)  # fmt: skip
def test_ranges(header: str, expected: tuple[int, int] | None) -> None:
    assert range_of(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_ranges_beyond_the_end(header: str) -> None:
    with pytest.raises(RequestRefused) as refusal:
        range_of(header, 100)
    assert refusal.value.status == 416


def test_unfinished_uploads_are_swept(
    context: Context, http: TestClient, client: TestClient, later: Callable[[float], None]
) -> None:
    reply = http.post("/api/v1/uploads", json=announced(PNG)).json()
    put_all(client, {**reply, "parts": reply["parts"][:1]}, PNG)
    ticker.sweep(context)
    assert len(list((context.blobs.folder / "uploads").iterdir())) == 1
    later(3 * 86400)
    ticker.sweep(context)
    assert not list((context.blobs.folder / "uploads").iterdir())
    with context.reading() as db:
        assert db.query(Upload).count() == 0


def test_addresses_hold_over_a_restart(context: Context, http: TestClient, reopen: Callable[[], Context]) -> None:
    reply = http.post("/api/v1/uploads", json=announced(PNG)).json()
    url = urlsplit(reply["parts"][2]["url"])
    query = dict(pair.split("=") for pair in url.query.split("&"))
    other = reopen()
    assert other.replica != context.replica
    last = PNG[2 * reply["part_bytes"] :]
    uploads.check_address(other, reply["id"], 3, int(query["expires"]), query["signature"])
    uploads.put_part(other, reply["id"], 3, last)
    again = http.post("/api/v1/uploads", json=announced(PNG)).json()
    assert [p["number"] for p in again["parts"]] == [1, 2]


def test_limits_are_good_at_the_limit(
    http: TestClient, as_role: Callable[[str], TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, kind in enumerate(uploads.MAX_PICTURE_BYTES):  # the real ones have 10^5 parts of this server's size
        monkeypatch.setitem(uploads.MAX_PICTURE_BYTES, kind, 30_000 + number)
    for kind, most in uploads.MAX_PICTURE_BYTES.items():
        assert http.post("/api/v1/uploads", json=announced(PNG, kind=kind, length=most)).status_code == 200, kind
        assert http.post("/api/v1/uploads", json=announced(PNG, kind=kind, length=most + 1)).status_code == 413, kind
    body = {"sha256": "0" * 64, "length": 10_000}
    assert as_role("operator").post("/api/v1/artifacts", json=body).status_code == 200
    assert as_role("operator").post("/api/v1/artifacts", json={**body, "length": 10_001}).status_code == 413


def test_a_picture_of_the_same_pin_replaces_the_one_before(
    context: Context, http: TestClient, client: TestClient
) -> None:
    for content in (PNG + b"first", PNG + b"second"):
        send(http, client, content)
    with context.reading() as db:
        assert db.query(Picture).one().sha256 == sha256_hex(PNG + b"second")
