"""Upload of one picture in parts, as docs/fleet.md tells: ask for a place, put the parts, complete."""

from __future__ import annotations

from collections.abc import Callable

from cellfleet.canonical import sha256_hex
from cellfleet.device.server.spool import Picture
from cellfleet.errors import WireError
from cellfleet.ports.http import Response
from cellfleet.wire.base import parse
from cellfleet.wire.features import NONE
from cellfleet.wire.uploads import UploadReply, UploadRequest

Ask = Callable[[str, str, bytes, dict[str, str]], Response]
Put = Callable[[str, bytes], Response]
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


class Refused(Exception):
    """This picture cannot be uploaded, now or later: its file is gone, or the server does not want it."""


def upload(picture: Picture, ask: Ask, put: Put) -> None:
    """Upload a picture; the same call again (after a broken one) is fine.

    Args:
        picture: what, and where its file is.
        ask: sends a request as this device; raises for everything that may go well later.
        put: puts one part to an address of the server.

    Raises:
        Refused: it never can be.
    """
    try:
        data = picture.path.read_bytes()
    except OSError as e:
        raise Refused(f"its file cannot be read: {e.strerror}") from e
    if not data:
        raise Refused("its file is empty")
    wanted = {
        "kind": picture.kind,
        "experiment": picture.experiment,
        "frame": picture.frame,
        "pin": picture.pin,
        "sha256": sha256_hex(data),
        "length": len(data),
    }
    request = UploadRequest.model_validate(wanted)
    answer = ask("POST", "/api/v1/uploads", request.to_json(NONE), _JSON)
    _check(answer)
    try:
        place = parse(UploadReply, answer.body)
    except WireError as e:
        raise Refused(f"the server's answer is not understood: {e.message}") from e
    if place.done:
        return
    for part in place.parts:
        _check(put(part.url, data[(part.number - 1) * place.part_bytes : part.number * place.part_bytes]))
    _check(ask("POST", f"/api/v1/uploads/{place.id}/complete", b"", {}))


def _check(answer: Response) -> None:
    if answer.status >= 300:
        raise Refused(f"status {answer.status}: {answer.body[:300].decode('utf-8', 'replace')}")
