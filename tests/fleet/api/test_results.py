"""Rows, experiments and counts over the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from cellfleet.config.fleet import FleetSection
from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import telemetry
from cellfleet.fleet.people.access import Caller
from cellfleet.wire.telemetry_events import (
    Event,
    ExperimentStarted,
    FrameSegmented,
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


def drawn(n: int, pin: int = 1, **more: Any) -> FrameSegmented:
    facts = {
        "experiment": "p1", "frame": f"A1_{n:04}", "pin": pin, "run_digest": digest("run", pin),
        "bundle_sha256": digest("bundle", pin), "variant": "onnxruntime/fp32", "count": 10 + n, "confluence_percent": 40.0,
        "features": {"sharpness": 0.4, "spread": None}, "timings_ms": {"total": 250.0}, "mask_sha256": digest("mask", n, pin),
        "segmented_at": NOW + timedelta(seconds=n + 1),
    }  # fmt: skip
    return FrameSegmented.model_validate({**facts, **more})


def send(context: Context, caller: Caller, key: str, events: Sequence[Event]) -> ExportLogsServiceResponse:
    body = encode_events({"service.name": "tests"}, events, NOW)
    answer = ExportLogsServiceResponse()
    answer.ParseFromString(telemetry.take_logs(context, caller, key, body))
    return answer


STORY: list[Event] = [
    *(taken(n) for n in range(20)), *(drawn(n) for n in range(20)), *(drawn(n, 2) for n in range(20)),
]  # fmt: skip


def test_rows_and_experiments_are_listed(
    context: Context, caller: Caller, as_role: Callable[[str], TestClient]
) -> None:
    send(
        context,
        caller,
        "1",
        [
            ExperimentStarted(experiment="p1", started_at=NOW),
            *STORY,
            drawn(0, 1, experiment="p2"),
            taken(0, experiment="p2", problem="cut off"),
        ],
    )
    http = as_role("viewer")
    base = "/api/v1/devices/XYZ-001"
    first = http.get(f"{base}/results?experiment=p1&limit=15").json()
    rest = http.get(f"{base}/results?experiment=p1&limit=15&after={first['next']}").json()
    rows = first["items"] + rest["items"]
    assert ([r["pin"] for r in rows], rest["next"]) == ([2] * 20, "")
    assert {r["well"] for r in rows} == {"A1"}
    assert rows[0]["details"]["features"] == {"sharpness": 0.4, "spread": None}
    assert len(http.get(f"{base}/results?experiment=p1&superseded=true").json()["items"]) == 40
    assert http.get(f"{base}/results?well=B9").json()["items"] == []
    assert http.get(f"{base}/counts").json() == {
        "taken": 21, "unreadable": 1, "segmented": 21, "rows": 21, "superseded": 20,
    }  # fmt: skip
    experiments = http.get(f"{base}/experiments").json()["items"]
    assert [(e["name"], e["counts"]["rows"]) for e in experiments] == [("p1", 20)]
    assert http.get("/api/v1/devices/XYZ-404/results").status_code == 404
