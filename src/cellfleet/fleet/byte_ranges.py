"""Answers that are bytes from the store: whole, a range of them (RFC 9110), or nothing when the caller has them already."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cellfleet.fleet.context import Context
from cellfleet.fleet.refusals import RequestRefused

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

BINARY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {"description": "The requested range; see `Content-Range`."},
    304: {"description": "The caller has these bytes already."},
}
"""For the description of an operation that answers with bytes."""


async def raw_body(request: Request) -> bytes:
    """The body as it came; its size is limited by the middleware."""
    return await request.body()


def range_of(header: str, length: int) -> tuple[int, int] | None:
    """First and last+1 byte that a Range header asks for; None: it is none, or one that may be ignored.

    Raises:
        RequestRefused: 416, beyond the end.
    """
    found = _RANGE.fullmatch(header.strip().replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, length - int(found[2])), length
    else:
        start, end = int(found[1]), min(length, int(found[2]) + 1 if found[2] else length)
        if found[2] and int(found[2]) < int(found[1]):
            return None
    if start >= length or start >= end:
        raise RequestRefused(
            416, "range", f"there are {length} bytes", headers={"Content-Range": f"bytes */{length}"}, hint="ask anew"
        )
    return start, end


def bytes_answer(
    context: Context,
    request: Request,
    sha256: str,
    *,
    media_type: str = "application/octet-stream",
    cache_control: str = "private, max-age=86400",
) -> Response:
    """Bytes of the store. They never change under their digest, so that is their ETag.

    Args:
        context: the server.
        request: its method, ``Range``, ``If-Range`` and ``If-None-Match`` are followed.
        sha256: which bytes.
        media_type, cache_control: headers of the answer.

    Returns:
        200, 206 or 304.

    Raises:
        RequestRefused: 404, 416.
    """
    length, etag = context.blobs.size(sha256), f'"{sha256}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": cache_control}
    tags = [t.strip().removeprefix("W/") for t in request.headers.get("if-none-match", "").split(",")]
    if etag in tags or "*" in tags:
        return Response(status_code=304, headers=headers)
    wanted = None
    if request.headers.get("if-range", etag) == etag:
        wanted = range_of(request.headers.get("range", ""), length)
    start, end = wanted or (0, length)
    headers["Content-Length"] = str(end - start)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{length}"
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(context.blobs.open(sha256, start, end), status, headers=headers, media_type=media_type)
