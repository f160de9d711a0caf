"""Telemetry as OTLP (protobuf): events are log records, measurements are gauges; any OpenTelemetry collector accepts them.

Source: opentelemetry-proto, ``opentelemetry.proto.collector.{logs,metrics}.v1``. An event's kind is the record's
``event_name``, its fields are attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from cellfleet.errors import WireError
from cellfleet.wire.telemetry_events import Event, parse_event

SCOPE = "cellfleet.device"
CONTENT_TYPE = "application/x-protobuf"
_MAX_DEPTH = 16


@dataclass(frozen=True)
class Gauge:
    """One measurement: name as in OpenTelemetry (``cellfleet.queue.frames``), unit as in UCUM (``1``, ``ms``, ``MBy``)."""

    name: str
    value: float
    unit: str
    at: datetime


@dataclass(frozen=True)
class Batch:
    """Content of one request: facts of the sender, and events or gauges. ``bad`` names rejected records."""

    resource: dict[str, Any]
    events: tuple[Event, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    bad: tuple[str, ...] = ()


def encode_events(
    resource: Mapping[str, Any], events: Sequence[Event], now: datetime, features: frozenset[str] | None = None
) -> bytes:
    """Encode events as an ExportLogsServiceRequest.

    Args:
        resource: facts of the sender: ``service.name``, ``service.instance.id`` and the like.
        events: one log record each.
        now: time of the records.
        features: what the server announced; fields of other features are omitted. None: whole events.

    Returns:
        Protobuf; equal arguments give equal bytes.
    """
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(_pairs(resource))
    scope = group.scope_logs.add()
    scope.scope.name = SCOPE
    for event in events:
        record = scope.log_records.add()
        record.observed_time_unix_nano = _nanos(now)
        record.time_unix_nano = _nanos(now)
        record.event_name = f"cellfleet.{event.event}"
        record.attributes.extend(_pairs(event.to_data(features)))
    return bytes(request.SerializeToString(deterministic=True))


def encode_gauges(resource: Mapping[str, Any], gauges: Sequence[Gauge]) -> bytes:
    """Encode gauges as an ExportMetricsServiceRequest.

    Args:
        resource: facts of the sender.
        gauges: one data point each.

    Returns:
        Protobuf; equal arguments give equal bytes.
    """
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.extend(_pairs(resource))
    scope = group.scope_metrics.add()
    scope.scope.name = SCOPE
    for gauge in gauges:
        metric = scope.metrics.add()
        metric.name, metric.unit = gauge.name, gauge.unit
        point = metric.gauge.data_points.add()
        point.time_unix_nano = _nanos(gauge.at)
        point.as_double = gauge.value
    return bytes(request.SerializeToString(deterministic=True))


def decode_events(data: bytes) -> Batch:
    """Decode log records. Those that are not valid events are named in ``bad``.

    Raises:
        WireError: not OTLP.
    """
    request = ExportLogsServiceRequest()
    _parse(request, data)
    resource: dict[str, Any] = {}
    events: list[Event] = []
    bad: list[str] = []
    for group in request.resource_logs:
        resource |= _plain_pairs(group.resource.attributes)
        for scope in group.scope_logs:
            for record in scope.log_records:
                try:
                    events.append(parse_event(_plain_pairs(record.attributes)))
                except WireError as e:
                    bad.append(f"{record.event_name or 'record'}: {e.message}")
    return Batch(resource, events=tuple(events), bad=tuple(bad))


def decode_gauges(data: bytes) -> Batch:
    """Decode metrics. Those that are not gauges are named in ``bad``.

    Raises:
        WireError: not OTLP.
    """
    request = ExportMetricsServiceRequest()
    _parse(request, data)
    resource: dict[str, Any] = {}
    gauges: list[Gauge] = []
    bad: list[str] = []
    for group in request.resource_metrics:
        resource |= _plain_pairs(group.resource.attributes)
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                if not metric.HasField("gauge"):
                    bad.append(f"{metric.name}: only gauges are accepted")
                    continue
                for point in metric.gauge.data_points:
                    value = point.as_double if point.HasField("as_double") else float(point.as_int)
                    gauges.append(Gauge(metric.name, value, metric.unit, _time(point.time_unix_nano)))
    return Batch(resource, gauges=tuple(gauges), bad=tuple(bad))


def _parse(message: Any, data: bytes) -> None:
    try:
        message.ParseFromString(data)
    except (DecodeError, RecursionError) as e:
        raise WireError(f"not OTLP in protobuf: {e}", hint=f"send {CONTENT_TYPE}") from e


def _pairs(facts: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=k, value=_any(v)) for k, v in facts.items()]


def _any(value: Any) -> AnyValue:
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case Mapping():
            return AnyValue(kvlist_value=KeyValueList(values=_pairs(value)))
        case _:
            return AnyValue(array_value=ArrayValue(values=[_any(v) for v in value]))


def _plain_pairs(pairs: Any, depth: int = 0) -> dict[str, Any]:
    return {p.key: _plain(p.value, depth) for p in pairs}


def _plain(value: AnyValue, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if depth > _MAX_DEPTH:
        return "..."
    if kind == "kvlist_value":
        return _plain_pairs(value.kvlist_value.values, depth + 1)
    if kind == "array_value":
        return [_plain(v, depth + 1) for v in value.array_value.values]
    return getattr(value, kind)


def _nanos(at: datetime) -> int:
    return round(at.timestamp() * 1e6) * 1000


def _time(nanos: int) -> datetime:
    try:
        return datetime.fromtimestamp(nanos / 1e9, UTC)
    except (OverflowError, OSError, ValueError) as e:
        raise WireError(f"invalid time: {nanos} ns", hint="check the clock of the device") from e
