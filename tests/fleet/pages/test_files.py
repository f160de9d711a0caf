"""Pictures of frames and static files."""

from __future__ import annotations

from typing import Any

import pytest

from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import Device, Picture
from support_fleet import TestClient
from support_fleet_data import Filled


def test_a_picture_is_kept_by_browsers_under_its_digest(filled: Filled, tab: Any, context: Context) -> None:
    with context.reading() as db:
        device = db.query(Device).filter_by(name=filled.devices[0]).one()
        row = db.get_one(Picture, (device.id, filled.experiment, "B2_t0005", "overlay"))
    mine, address = tab("viewer"), f"/devices/{device.name}/pictures/{filled.experiment}/B2_t0005/overlay"
    answer = mine.get(f"{address}?v={row.sha256[:12]}")
    assert answer.content.startswith(b"\x89PNG")
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    assert "immutable" not in mine.get(address).headers["cache-control"]
    mine.get(address, 304, **{"if-none-match": answer.headers["etag"]})
    assert address in mine.get(f"/devices/{device.name}/frames/{filled.experiment}/B2_t0005").text


@pytest.mark.parametrize(
    "path", ["x/y/overlay", "plate-240/..%2F..%2Fetc/overlay", "plate-240/B2_t0005/secret", "plate-240/nothing/mask"]
)
@pytest.mark.usefixtures("filled")
def test_what_is_no_picture_is_not_found(tab: Any, path: str) -> None:
    tab("viewer").get(f"/devices/Basel-001/pictures/{path}", 404)


def test_a_device_cannot_make_its_picture_a_page(filled: Filled, tab: Any, context: Context) -> None:
    with context.sessions() as db:
        device = db.query(Device).filter_by(name=filled.devices[0]).one()
        row = db.get_one(Picture, (device.id, filled.experiment, "B2_t0005", "overlay"))
        row.media_type = "text/html"
    answer = tab("viewer").get(f"/devices/{device.name}/pictures/{filled.experiment}/B2_t0005/overlay")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_pictures_are_for_people_who_are_signed_in(filled: Filled, client: TestClient) -> None:
    address = f"/devices/{filled.devices[0]}/pictures/{filled.experiment}/B2_t0005/overlay"
    assert client.get(address, follow_redirects=False).status_code == 303


def test_static_files(client: TestClient) -> None:
    plain, kept = client.get("/static/pages.css"), client.get("/static/pages.css?v=1")
    assert (plain.status_code, plain.headers["cache-control"]) == (200, "no-cache")
    assert "immutable" in kept.headers["cache-control"]
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404
