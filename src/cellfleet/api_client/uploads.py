"""A file in parts, as docs/fleet.md describes it: announce the file, put the parts, complete."""

from __future__ import annotations

from typing import BinaryIO

from cellfleet.api_client.answers import ServerRefuses, check
from cellfleet.api_client.client import ApiClient
from cellfleet.ports import ProgressFn, silent
from cellfleet.wire.base import Message, parse
from cellfleet.wire.uploads import UploadPart, UploadReply

_BYTES = {"Content-Type": "application/octet-stream"}


class PartRefused(ServerRefuses):
    """The server (or its object store) does not take a part at the address that it gave for it."""


def upload(
    api: ApiClient,
    path: str,
    announcement: Message,
    content: BinaryIO,
    *,
    part_timeout_s: float | None = None,
    progress: ProgressFn = silent,
) -> int:
    """Send a file in parts. The same call again sends only what has not arrived.

    Args:
        api: the server.
        path: where the file is announced, such as ``/api/v1/uploads``.
        announcement: UploadRequest or ArtifactRequest with the file's SHA-256 and length.
        content: the file, open for reading; parts are read one at a time.
        part_timeout_s: timeout of the network for one part; None: that of the client.
        progress: is given parts sent, parts in all, and megabytes in words.

    Returns:
        Bytes sent; 0 when the server has the file already.

    Raises:
        NetworkError: later, perhaps.
        ServerRefuses: the server does not want the file; PartRefused: a part of it.
        WireError: the server's answer is not understood.
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
    """Put one part; its address is the authorisation, so no token goes to it."""
    url = part.url if "://" in part.url else api.base_url + part.url
    answer = api.send_open("PUT", url, data, _BYTES, timeout_s=timeout_s)
    try:
        check(answer, f"part {part.number}")
    except ServerRefuses as e:
        hint = e.hint if e.code else "send the file again; what has arrived is not sent twice"
        raise PartRefused(e.message, status=e.status, code=e.code, hint=hint) from e
