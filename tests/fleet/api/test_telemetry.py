"""OTLP over HTTP: bytes, compression, sizes."""

from __future__ import annotations

import gzip
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cellfleet.config.fleet import FleetSection
from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import results
from cellfleet.fleet.ingest.results import FrameCounts
from cellfleet.fleet.people.access import Caller
from cellfleet.wire.telemetry_events import (
    FrameTaken,
)
from cellfleet.wire.telemetry_otlp import encode_events
from support_fleet import TestClient, TestDevice, World
from support_rollout import digest

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.fixture
def fleet_settings(database_url: str) -> FleetSection:
    return FleetSection(database=database_url, public_url="http://fleet.test", max_body_mb=1)


@pytest.fixture
def device(world: World) -> TestDevice:
    return world.device("XYZ-001")


@pytest.fixture
def caller(device: TestDevice) -> Caller:
    return Caller(device.device_id, device.name)


def taken(n: int, **more: Any) -> FrameTaken:
    facts = {
        "experiment": "p1", "frame": f"A1_{n:04}", "index": n, "well": "A1", "time_s": 60.0 * n,
        "taken_at": NOW + timedelta(seconds=n), "sha256": digest("raw", n), "bytes": 1000,
    }  # fmt: skip
    return FrameTaken.model_validate({**facts, **more})


def counts(context: Context, caller: Caller) -> FrameCounts:
    with context.reading() as db:
        return results.counts(db, caller.device_id)


def test_other_bytes(device: TestDevice, client: TestClient) -> None:
    http = device.http
    assert http is not None
    answer = http.post("/v1/logs", content=b"\xff\xff\xff\xff")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:cellfleet:problem:not-otlp")
    assert client.post("/v1/logs", content=b"").status_code == 401
    assert http.post("/v1/logs", content=b"").status_code == 200, "an empty request is a request"


def test_gzip_and_bombs(context: Context, caller: Caller, device: TestDevice) -> None:
    http = device.http
    assert http is not None
    body = gzip.compress(encode_events({}, [taken(1)], NOW))
    packed = {"Content-Encoding": "gzip", "Idempotency-Key": "g"}
    assert http.post("/v1/logs", content=body, headers=packed).status_code == 200
    plain = gzip.decompress(body)
    assert http.post("/v1/logs", content=plain, headers={"Idempotency-Key": "g"}).status_code == 200, "the same batch"
    assert counts(context, caller).taken == 1
    bomb = gzip.compress(bytes(200_000_000))
    assert len(bomb) < 250_000
    assert http.post("/v1/logs", content=bomb, headers={"Content-Encoding": "gzip"}).status_code == 413
    assert http.post("/v1/logs", content=body[:-9], headers={"Content-Encoding": "gzip"}).status_code == 400
    assert http.post("/v1/logs", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 400
    assert http.post("/v1/logs", content=zlib.compress(b"x"), headers={"Content-Encoding": "br"}).status_code == 415
