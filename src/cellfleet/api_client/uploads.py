"""Upload a file in parts, as docs/fleet.md describes: announce the file, send the parts, complete the upload."""

from __future__ import annotations

from typing import BinaryIO

from cellfleet.api_client.answers import ServerRefuses, check
from cellfleet.api_client.client import ApiClient
from cellfleet.ports import ProgressFn, silent
from cellfleet.wire.base import Message, parse
from cellfleet.wire.uploads import UploadPart, UploadReply

_BYTES = {"Content-Type": "application/octet-stream"}


class PartRefused(ServerRefuses):
    """The server (or its object store) refuses a part at the address that the server gave."""


def upload(
    api: ApiClient,
    path: str,
    announcement: Message,
    content: BinaryIO,
    *,
    part_timeout_s: float | None = None,
    progress: ProgressFn = silent,
) -> int:
    """Upload a file in parts. A repeated call sends only missing parts.

    Args:
        api: the server.
        path: path of the announcement, such as ``/api/v1/uploads``.
        announcement: UploadRequest or ArtifactRequest with the file's SHA-256 and length.
        content: the file, open for reading; one part is read at a time.
        part_timeout_s: network timeout of one part in seconds; None: the timeout of the client.
        progress: called with parts sent, parts in total, and megabytes as text.

    Returns:
        Bytes sent; 0 if the server already has the file.

    Raises:
        NetworkError: the network or the server fails; retry later.
        ServerRefuses: the server refuses the file; PartRefused: it refuses a part.
        WireError: the server's response is invalid.
    """
    place = parse(UploadReply, api.request("POST", path, announcement.to_json(api.peer.features)).body)
    if place.done:
        return 0
    sent = 0
    for count, part in enumerate(place.parts, start=1):
        content.seek((part.number - 1) * place.part_bytes)
        data = content.read(place.part_bytes)
        _put(api, part, data, part_timeout_s)
        sent += len(data)
        progress(count, len(place.parts), f"{sent / 1e6:.1f} MB")
    api.request("POST", f"/api/v1/uploads/{place.id}/complete")
    return sent


def _put(api: ApiClient, part: UploadPart, data: bytes, timeout_s: float | None) -> None:
    """Send one part without a token: its address is presigned."""
    url = part.url if "://" in part.url else api.base_url + part.url
    answer = api.send_open("PUT", url, data, _BYTES, timeout_s=timeout_s)
    try:
        check(answer, f"part {part.number}")
    except ServerRefuses as e:
        hint = e.hint if e.code else "upload the file again; parts that have arrived are not sent again"
        raise PartRefused(e.message, status=e.status, code=e.code, hint=hint) from e
