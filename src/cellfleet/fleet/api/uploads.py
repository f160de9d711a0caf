"""Files in parts: announce, put the parts, complete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query
from starlette.requests import Request

from cellfleet.fleet.api.dependencies import Ctx, OfDevice, OfEither, anybody
from cellfleet.fleet.byte_ranges import raw_body
from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import uploads
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.wire.uploads import UploadReply, UploadRequest

router = APIRouter(prefix="/api/v1/uploads", tags=["uploads"])
UploadId = Annotated[str, Path(pattern=r"^up-[0-9a-f]{32}$", examples=["up-00112233445566778899aabbccddeeff"])]
ANNOUNCED = {
    "kind": "thumbnail",
    "experiment": "plate-7",
    "frame": "A1_t0001",
    "pin": 1,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "length": 20480,
}


def base_url(context: Context, request: Request) -> str:
    """Where the caller reaches this server: the public address, else the one that it used."""
    return context.settings.public_url or str(request.base_url)


@router.post(
    "",
    summary="Announce a file of a frame",
    description="Answers with the URLs of the missing parts, or `done` when the server already has these bytes.",
)
def begin(
    context: Ctx, by: OfDevice, request: Request, body: Annotated[UploadRequest, Body(examples=[ANNOUNCED])]
) -> UploadReply:
    return uploads.begin_picture(context, by, body, base_url(context, request))


@router.put(
    "/{upload_id}/parts/{number}",
    status_code=204,
    summary="Put a part",
    description="The URL is the authorisation: it is signed and expires. A part that is put again replaces the first.",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
def put(
    context: Ctx,
    request: Request,
    upload_id: UploadId,
    number: Annotated[int, Path(ge=1, le=2**20, examples=[1])],
    expires: Annotated[int, Query(ge=0, le=2**40, examples=[1772445600])],
    signature: Annotated[str, Query(max_length=64, examples=["0" * 64])],
    body: Annotated[bytes, Depends(raw_body)],
) -> None:
    try:
        uploads.check_address(context, upload_id, number, expires, signature)
    except RequestRefused:
        anybody(request, context)  # slows down guessing of addresses
        raise
    uploads.put_part(context, upload_id, number, body)


@router.post(
    "/{upload_id}/complete",
    status_code=204,
    summary="Complete an upload",
    description="Checks length and SHA-256 of the whole file. Completing it again changes nothing.",
)
def complete(context: Ctx, by: OfEither, upload_id: UploadId) -> None:
    uploads.complete(context, by, upload_id)
