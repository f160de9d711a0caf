"""Desired state and reported state of the instrument that asks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from cellfleet.fleet.api.dependencies import Ctx, OfDevice, PeerFeatures
from cellfleet.fleet.refusals import too_large
from cellfleet.fleet.rollout import desired_state, reports
from cellfleet.wire.features import HEADER
from cellfleet.wire.states import DesiredState, ReportedState

router = APIRouter(prefix="/api/v1/device", tags=["device"])
MAX_REPORT_BYTES = 512_000
REPORT: dict[str, Any] = {
    "device_id": "dev-0123456789ab",
    "sequence": 17,
    "boot_id": "b-1",
    "at": "2026-03-02T09:00:00Z",
    "generation": 3,
    "state": "idle",
    "counters": {"taken": 60, "stored": 60, "segmented": 60},
    "health": {"disk_free_mb": 210000, "camera": "running", "segmenter": "running"},
    "facts": {"cellfleet_version": "0.2.0", "platform": "Linux x86_64"},
}


async def small(request: Request) -> None:
    """Limit the size of a report before it is parsed."""
    if len(await request.body()) > MAX_REPORT_BYTES:
        raise too_large(f"the report is too large; the limit is {MAX_REPORT_BYTES} bytes")


@router.get(
    "/desired",
    summary="Desired state of this device",
    description="Send the `ETag` of the last answer as `If-None-Match`: 304 means that nothing changed.",
    response_model=DesiredState,
    responses={304: {"description": "Nothing changed."}},
)
def ask(
    context: Ctx,
    by: OfDevice,
    features: PeerFeatures,
    if_none_match: Annotated[str, Header(max_length=1000, examples=['"0-60"'])] = "",
) -> Response:
    found = desired_state.ask(context, by.device_id, if_none_match, features)
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache", "Vary": HEADER}
    if found.state is None:
        return Response(status_code=304, headers=headers)
    return Response(found.state.to_json(features), media_type="application/json", headers=headers)


@router.put(
    "/reported",
    status_code=204,
    summary="Reported state of this device",
    description="`sequence` increases with every report. An older report of the same start changes nothing; another start means "
    "two machines with one key: 409 `two-machines`.",
    dependencies=[Depends(small)],
)
def report(context: Ctx, by: OfDevice, body: Annotated[ReportedState, Body(examples=[REPORT])]) -> None:
    reports.take(context, by, body)
