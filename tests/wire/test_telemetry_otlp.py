"""Telemetry as OTLP: events come back the same, strangers' records are named, rubbish is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from cellfleet.errors import WireError
from cellfleet.wire.telemetry_events import AgentMoved, Flag, FrameSegmented, Incident
from cellfleet.wire.telemetry_otlp import Gauge, decode_events, decode_gauges, encode_events, encode_gauges

NOW = datetime(2026, 3, 1, 12, 0, 0, 250000, tzinfo=UTC)
RESOURCE = {"service.name": "cellfleet-device", "service.instance.id": "dev-0123456789ab"}


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.none() | st.floats(-1e12, 1e12), max_size=5),
    st.integers(0, 10**6),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
)
def test_events_come_back_the_same(features: dict[str, float | None], count: int, reason: str) -> None:
    events = (
        FrameSegmented(
            experiment="run-1",
            frame="f1",
            pin=1,
            run_digest="a" * 64,
            bundle_sha256="b" * 64,
            variant="openvino/int8",
            count=count,
            confluence_percent=12.5,
            features=features,
            flags=(Flag(name="blank", reason=reason),),
            timings_ms={"total": 1.0},
            mask_sha256="c" * 64,
            segmented_at=NOW,
        ),
        Incident(at=NOW, kind="crash", text=reason),
        AgentMoved(
            at=NOW, source="idle", target="checking", trigger="update-wanted", numbers={"list": [1, {"a": None}]}
        ),
    )
    batch = decode_events(encode_events(RESOURCE, events, NOW))
    assert batch.events == events
    assert batch.resource == RESOURCE
    assert batch.bad == ()


def test_the_same_events_give_the_same_bytes() -> None:
    events = [Incident(at=NOW, kind="crash", text="x")]
    assert encode_events(RESOURCE, events, NOW) == encode_events(RESOURCE, events, NOW)


def test_records_of_strangers_are_named_and_the_others_kept() -> None:
    request = ExportLogsServiceRequest()
    request.ParseFromString(encode_events(RESOURCE, [Incident(at=NOW, kind="crash", text="x")], NOW))
    request.resource_logs[0].scope_logs[0].log_records.add().event_name = "of.somebody.else"
    batch = decode_events(request.SerializeToString())
    assert len(batch.events) == 1
    assert len(batch.bad) == 1
    assert batch.bad[0].startswith("of.somebody.else")


def test_gauges_come_back_the_same_and_other_metrics_are_named() -> None:
    gauges = (Gauge("cellfleet.queue.frames", 3.0, "1", NOW), Gauge("cellfleet.segmenter.memory", 310.25, "MBy", NOW))
    request = ExportMetricsServiceRequest()
    request.ParseFromString(encode_gauges(RESOURCE, gauges))
    metric = request.resource_metrics[0].scope_metrics[0].metrics.add()
    metric.name = "requests"
    metric.sum.data_points.add().as_int = 1
    batch = decode_gauges(request.SerializeToString())
    assert batch.gauges == gauges
    assert batch.bad == ("requests: only gauges are accepted",)


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"{}", b"\x0a\x05abc"])
def test_what_is_not_otlp_is_refused(data: bytes) -> None:
    for decode in (decode_events, decode_gauges):
        with pytest.raises(WireError, match="OTLP"):
            decode(data)
