"""OTLP over HTTP (protobuf), at the paths that OpenTelemetry's exporters use."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from starlette.responses import Response

from cellfleet.fleet.api.dependencies import Ctx, OfDevice
from cellfleet.fleet.byte_ranges import raw_body
from cellfleet.fleet.ingest import telemetry
from cellfleet.wire.telemetry_otlp import CONTENT_TYPE

router = APIRouter(prefix="/v1", tags=["telemetry"])
RawBody = Annotated[bytes, Depends(raw_body)]
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=128,
        description="Key of the batch. The same batch sent again changes nothing. Default: the digest of the bytes.",
        examples=["b-1-000042"],
    ),
]
Encoding = Annotated[
    str, Header(alias="Content-Encoding", max_length=40, description="`gzip` or none.", examples=["gzip"])
]


def _otlp(request: str, answer: str) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary", "description": request}}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": {CONTENT_TYPE: binary}}},
        "responses": {
            200: {
                "description": f"{answer}; invalid records are reported as partial success.",
                "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
            }
        },
        "response_class": Response,
    }


@router.post(
    "/logs",
    summary="Events",
    description="Frames, rows, transitions and incidents as log records. Each event counts once, in any order of arrival.",
    **_otlp("ExportLogsServiceRequest", "ExportLogsServiceResponse"),
)
def logs(context: Ctx, by: OfDevice, body: RawBody, key: IdempotencyKey = "", encoding: Encoding = "") -> Response:
    plain = telemetry.unpack(body, encoding, int(context.settings.max_body_mb * 1e6))
    return Response(telemetry.take_logs(context, by, key, plain), media_type=CONTENT_TYPE)


@router.post(
    "/metrics",
    summary="Measurements",
    description="Gauges; kept for a day.",
    **_otlp("ExportMetricsServiceRequest", "ExportMetricsServiceResponse"),
)
def metrics(context: Ctx, by: OfDevice, body: RawBody, key: IdempotencyKey = "", encoding: Encoding = "") -> Response:
    plain = telemetry.unpack(body, encoding, int(context.settings.max_body_mb * 1e6))
    return Response(telemetry.take_metrics(context, by, key, plain), media_type=CONTENT_TYPE)
