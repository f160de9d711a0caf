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
from cellfleet.fleet.store.models import Artifact, Picture, Upload
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


def test_sizes(http: TestClient, as_role: Callable[[str], TestClient]) -> None:
    assert http.post("/api/v1/uploads", json=announced(PNG, length=10**12)).status_code == 413
    assert http.post("/api/v1/uploads", json=announced(PNG, length=0)).status_code == 422
    body = {"sha256": "0" * 64, "length": 20_000}
    assert as_role("operator").post("/api/v1/artifacts", json=body).status_code == 413
    assert as_role("viewer").post("/api/v1/artifacts", json={**body, "length": 5}).status_code == 403
    assert http.post("/api/v1/artifacts", json={**body, "length": 5}).status_code == 403


@pytest.mark.parametrize("key", ["experiment", "frame"])
@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a\\b", ".hidden", "a\0b", ""])
def test_a_path_in_a_name(http: TestClient, key: str, name: str) -> None:
    assert http.post("/api/v1/uploads", json=announced(PNG, **{key: name})).status_code == 422


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
