"""Upload of one picture in parts, as docs/fleet.md tells: ask for a place, put the parts, complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cellfleet.canonical import canonical_bytes, sha256_hex
from cellfleet.device.spool import Picture
from cellfleet.ports.http import Response

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
    wanted = {
        "kind": picture.kind,
        "experiment": picture.experiment,
        "frame": picture.frame,
        "pin": picture.pin,
        "sha256": sha256_hex(data),
        "length": len(data),
    }
    place = _json(ask("POST", "/api/v1/uploads", canonical_bytes(wanted), _JSON))
    if place.get("done"):
        return
    try:
        size, number = int(place["part_bytes"]), str(place["id"])
        parts = [(int(p["number"]), str(p["url"])) for p in place["parts"]]
    except (KeyError, TypeError, ValueError) as e:
        raise Refused("the server's answer is not understood") from e
    for i, (_, url) in enumerate(sorted(parts)):
        _check(put(url, data[i * size : (i + 1) * size]))
    _check(ask("POST", f"/api/v1/uploads/{number}/complete", b"{}", _JSON))


def _json(answer: Response) -> dict[str, Any]:
    _check(answer)
    try:
        return dict(json.loads(answer.body))
    except (ValueError, TypeError) as e:
        raise Refused("the server's answer is not understood") from e


def _check(answer: Response) -> None:
    if answer.status >= 300:
        raise Refused(f"status {answer.status}: {answer.body[:300].decode('utf-8', 'replace')}")
