"""Telemetry: each batch once, each event once, in any order."""

from __future__ import annotations

import gzip
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from sqlalchemy import event
from sqlalchemy.orm import Session

from cellfleet.config.fleet import FleetSection
from cellfleet.fleet import ticker
from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import results, telemetry
from cellfleet.fleet.ingest.results import FrameCounts
from cellfleet.fleet.people.access import Caller
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.store.models import (
    Device,
    DeviceEvent,
    Experiment,
    FrameRow,
    GaugePoint,
    ResultRow,
    TelemetryBatch,
)
from cellfleet.wire.telemetry_events import (
    AgentMoved,
    Event,
    ExperimentStarted,
    FrameFailed,
    FrameSegmented,
    FrameTaken,
    Incident,
)
from cellfleet.wire.telemetry_otlp import Gauge, encode_events, encode_gauges
from support_fleet import TestDevice, World, wait_until_blocked
from support_rollout import digest
from support_waiting import PATIENCE_S

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


def started(pin: int = 1, **more: Any) -> ExperimentStarted:
    facts = {
        "experiment": "p1",
        "started_at": NOW,
        "pin": pin,
        "pinned_sha256": digest("bundle", pin),
        "run_digest": "r",
    }
    return ExperimentStarted.model_validate({**facts, **more})


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


def counts(context: Context, caller: Caller) -> FrameCounts:
    with context.reading() as db:
        return results.counts(db, caller.device_id)


STORY: list[Event] = [
    started(),
    *(taken(n) for n in range(20)),
    *(drawn(n) for n in range(20)),
    started(2, reason="rolled back"),
    *(drawn(n, 2) for n in range(20)),
    started(2, ended_at=NOW + timedelta(hours=1)),
]


@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_twice_gives_the_same(context: Context, caller: Caller, seed: int) -> None:
    events = [*STORY, *STORY] if seed else list(STORY)
    chance = random.Random(seed)
    if seed:
        chance.shuffle(events)
    for i, at in enumerate(range(0, len(events), 7)):
        send(context, caller, f"b{i}", events[at : at + 7])
    assert counts(context, caller) == FrameCounts(taken=20, unreadable=0, segmented=20, rows=20, superseded=20)
    with context.reading() as db:
        rows = {(r.frame, r.pin): r for r in db.query(ResultRow)}
        assert all(rows[f"A1_{n:04}", 1].superseded_by == rows[f"A1_{n:04}", 2].id for n in range(20))
        row = db.query(Experiment).one()
        assert (row.pin, row.pinned_sha256, row.ended_at) == (2, digest("bundle", 2), NOW + timedelta(hours=1))
        assert [h["pin"] for h in row.history] == [1, 2, 2]
        experiment = results.experiments(db, caller.device_id)[0]
        assert experiment[1] == FrameCounts(taken=20, unreadable=0, segmented=20, rows=20, superseded=20)
        assert db.query(FrameRow).count() == 20


def test_the_same_key_again(context: Context, caller: Caller, device: TestDevice) -> None:
    body = encode_events({}, [taken(1)], NOW)
    http = device.http
    assert http is not None
    headers = {"Content-Type": "application/x-protobuf", "Idempotency-Key": "k1"}
    for _ in range(2):
        answer = http.post("/v1/logs", content=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    other = http.post("/v1/logs", content=encode_events({}, [taken(2)], NOW), headers=headers)
    assert (other.status_code, other.json()["type"]) == (409, "urn:cellfleet:problem:key-reused")
    assert counts(context, caller).taken == 1
    with context.reading() as db:
        assert db.query(TelemetryBatch).count() == 1
    bad = http.post("/v1/logs", content=body, headers={**headers, "Idempotency-Key": "a\tb"})
    assert (bad.status_code, bad.json()["type"]) == (422, "urn:cellfleet:problem:idempotency-key")


def test_without_a_key_the_bytes_name_themselves(context: Context, caller: Caller) -> None:
    for _ in range(2):
        send(context, caller, "", [taken(1)])
    with context.reading() as db:
        assert db.query(TelemetryBatch).count() == 1


def test_results_before_frames_before_experiments(context: Context, caller: Caller) -> None:
    send(context, caller, "1", [drawn(1, 2)])
    assert counts(context, caller) == FrameCounts(taken=0, unreadable=0, segmented=0, rows=1, superseded=0)
    send(context, caller, "2", [drawn(1, 1)])
    assert counts(context, caller) == FrameCounts(taken=0, unreadable=0, segmented=0, rows=1, superseded=1)
    send(context, caller, "3", [taken(1)])
    assert counts(context, caller).segmented == 1
    send(context, caller, "4", [started(2)])
    send(context, caller, "5", [started(1)])
    with context.reading() as db:
        assert db.query(Experiment).one().pin == 2


def test_events_from_the_future_are_taken_at_the_time_of_receipt(context: Context, caller: Caller) -> None:
    far = NOW + timedelta(days=400)
    soon = NOW + timedelta(hours=20)
    events: list[Event] = [
        taken(1, taken_at=far), taken(2, taken_at=soon), drawn(1, segmented_at=far), started(started_at=far),
        Incident(at=datetime(1, 1, 1, tzinfo=UTC), kind="clock-off", text="it is late"),
    ]  # fmt: skip
    answer = send(context, caller, "f", events)
    assert answer.partial_success.rejected_log_records == 0
    assert "cannot be true" in answer.partial_success.error_message
    with context.reading() as db:
        assert {f.name: f.taken_at for f in db.query(FrameRow)} == {"A1_0001": NOW, "A1_0002": soon}
        assert db.query(ResultRow).one().segmented_at == NOW
        assert db.query(Experiment).one().started_at == NOW
        event = db.query(DeviceEvent).one()
        assert (event.at, event.content["at"]) == (NOW, "0001-01-01T00:00:00Z")
        assert "clock" in db.get_one(Device, caller.device_id).alarms


def test_incidents_transitions_and_failures_are_kept_once(context: Context, caller: Caller) -> None:
    events: list[Event] = [
        AgentMoved(at=NOW, source="idle", target="checking", trigger="update-wanted"),
        Incident(at=NOW, kind="segmenter-crash", text="exit -9"),
        FrameFailed(experiment="p1", frame="A1_0001", pin=1, reason="truncated", failed_at=NOW),
    ]
    send(context, caller, "1", events)
    send(context, caller, "2", [*events, *events])
    with context.reading() as db:
        assert sorted(e.kind for e in db.query(DeviceEvent)) == ["agent", "failed", "incident"]


def test_what_is_not_understood_is_named_and_the_rest_taken(context: Context, caller: Caller) -> None:
    good, bad = encode_events({}, [taken(1)], NOW), encode_events({}, [taken(2)], NOW)
    body = good + bad.replace(b"A1_0002", b"../0002")
    answer = ExportLogsServiceResponse.FromString(telemetry.take_logs(context, caller, "x", body))
    assert answer.partial_success.rejected_log_records == 1
    assert "frame" in answer.partial_success.error_message
    assert counts(context, caller).taken == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"\xff\xfe", "a\0b"], ids=repr)
def test_numbers_that_cannot_be_kept_hold_nothing_up(context: Context, caller: Caller, value: object) -> None:
    moved = AgentMoved(at=NOW, source="idle", target="checking", trigger="update-wanted", numbers={"ap50": 0.5})
    request = ExportLogsServiceRequest.FromString(encode_events({}, [taken(1), moved, taken(2)], NOW))
    numbers = next(a for a in request.resource_logs[0].scope_logs[0].log_records[1].attributes if a.key == "numbers")
    kind = {float: "double_value", bytes: "bytes_value", str: "string_value"}[type(value)]
    setattr(numbers.value.kvlist_value.values[0].value, kind, value)
    body = request.SerializeToString()
    answer = ExportLogsServiceResponse.FromString(telemetry.take_logs(context, caller, "x", body))
    assert answer.partial_success.rejected_log_records == 1
    assert "numbers" in answer.partial_success.error_message
    assert counts(context, caller).taken == 2
    with context.reading() as db:
        assert db.query(DeviceEvent).count() == 0


@contextmanager
def before_commits(act: Callable[[Session], None]) -> Iterator[None]:
    """Something happens whenever a session is about to commit."""
    event.listen(Session, "before_commit", act)
    try:
        yield
    finally:
        event.remove(Session, "before_commit", act)


def test_two_batches_of_one_device_at_once(context: Context, caller: Caller, reopen: Callable[[], Context]) -> None:
    """A batch that was given up on, and its successor that comes before the first is committed: one row counts."""
    send(context, caller, "0", [started(), taken(1)])
    other = reopen()
    second = threading.Thread(target=send, args=(other, caller, "2", [drawn(1, 2)]))

    def late(db: Session) -> None:
        """The rows of the first batch are there, and not committed yet."""
        if threading.current_thread() is not second and not second.ident:
            db.flush()
            second.start()
            wait_until_blocked(context, second)

    with before_commits(late):
        send(context, caller, "1", [drawn(1, 1)])
        second.join(PATIENCE_S)
    assert not second.is_alive()
    assert counts(context, caller) == FrameCounts(taken=1, unreadable=0, segmented=1, rows=1, superseded=1)


def test_too_much_at_once(context: Context, caller: Caller, device: TestDevice) -> None:
    assert device.http is not None
    assert device.http.post("/v1/logs", content=bytes(100_000_000)).status_code == 413
    with pytest.raises(RequestRefused) as refusal:
        telemetry.unpack(gzip.compress(bytes(1_000_001)), "gzip", 1_000_000)
    assert refusal.value.status == 413
    assert counts(context, caller).taken == 0


def test_measurements(context: Context, caller: Caller, later: Callable[[float], None]) -> None:
    gauges = [Gauge("cellfleet.queue.frames", float(n), "1", NOW + timedelta(seconds=n)) for n in range(3)]
    gauges.append(Gauge("cellfleet.queue.frames", float("nan"), "1", NOW))
    body = encode_gauges({}, gauges)
    for key in ("1", "1", "2"):
        answer = ExportMetricsServiceResponse.FromString(telemetry.take_metrics(context, caller, key, body))
        assert answer.partial_success.error_message == ""
    with context.reading() as db:
        assert sorted(g.value for g in db.query(GaugePoint)) == [0.0, 1.0, 2.0]
    later(25 * 3600)
    ticker.sweep(context)
    with context.reading() as db:
        assert db.query(GaugePoint).count() == 0


def test_a_batch_that_is_cut_off_is_taken_whole_or_not_at_all(context: Context, caller: Caller) -> None:
    def broken(db: Session) -> None:
        db.flush()
        raise OSError("the disk is gone")

    with before_commits(broken), pytest.raises(OSError, match="gone"):
        send(context, caller, "k", [taken(1), drawn(1)])
    assert counts(context, caller) == FrameCounts()
    send(context, caller, "k", [taken(1), drawn(1)])
    assert counts(context, caller).segmented == 1


def test_a_time_is_good_until_a_day_ahead(context: Context, caller: Caller) -> None:
    day = NOW + timedelta(days=1)
    send(context, caller, "k", [taken(1, taken_at=day), taken(2, taken_at=day + timedelta(microseconds=1))])
    with context.reading() as db:
        assert {f.name: f.taken_at for f in db.query(FrameRow)} == {"A1_0001": day, "A1_0002": NOW}


def test_as_much_as_is_taken_is_unpacked() -> None:
    body = bytes(1_000_000)
    assert telemetry.unpack(gzip.compress(body), "gzip", 1_000_000) == body


@pytest.mark.parametrize("swapped", [False, True])
def test_of_one_pin_the_row_that_was_segmented_last_counts(context: Context, caller: Caller, swapped: bool) -> None:
    early = drawn(1, run_digest=digest("early"), segmented_at=NOW)
    late = drawn(1, run_digest=digest("late"), segmented_at=NOW + timedelta(seconds=1))
    for n, e in enumerate((late, early) if swapped else (early, late)):
        send(context, caller, str(n), [e])
    with context.reading() as db:
        assert db.query(ResultRow).filter_by(superseded_by=None).one().run_digest == digest("late")
