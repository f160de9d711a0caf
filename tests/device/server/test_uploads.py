"""Which pictures are given up, and which wait."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cellfleet.api_client import ApiClient, ServerBusy, ServerRefuses
from cellfleet.api_client.client import FixedHeaders
from cellfleet.device.server.spool import Picture
from cellfleet.device.server.uploads import PictureRefused, upload_picture
from cellfleet.ports.http import Response
from support_http import Asked, ScriptedHttp

PLACE = Response(201, {}, json.dumps({"id": "up-1", "part_bytes": 9, "parts": [{"number": 1, "url": "/p"}]}).encode())


def expired(code: str) -> Response:
    problem = {"type": f"urn:cellfleet:problem:{code}", "title": "x", "status": 403, "detail": "no"}
    return Response(403, {}, json.dumps(problem).encode())


def send(path: Path, *, announce: Response = PLACE, part: Response | None = None) -> ScriptedHttp:
    def answer(asked: Asked) -> Response:
        return (part or Response(204)) if asked.method == "PUT" else announce

    http = ScriptedHttp(answer)
    upload_picture(ApiClient("http://x", http, FixedHeaders()), Picture(1, "thumbnail", "e1", "f1", 2, path, 7))
    return http


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"aaabbbc")
    return path


def test_a_picture_is_announced_with_its_digest(picture: Path) -> None:
    asked = send(picture).asked
    assert json.loads(asked[0].body or b"") == {
        "kind": "thumbnail", "experiment": "e1", "frame": "f1", "pin": 2, "length": 7,
        "sha256": hashlib.sha256(b"aaabbbc").hexdigest(),
    }  # fmt: skip
    assert [a.method for a in asked] == ["POST", "PUT", "POST"]


@pytest.mark.parametrize("content", [None, b""])
def test_a_file_that_is_gone_or_empty_is_given_up(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PictureRefused):
        send(path)


@pytest.mark.parametrize(
    "answers",
    [
        {"announce": Response(413)},
        {"announce": Response(404)},
        {"announce": Response(200, {}, b"<html>")},
        {"part": Response(400)},
        {"part": expired("bad-signature")},
    ],
)
def test_a_picture_that_the_server_does_not_want_is_given_up(picture: Path, answers: dict[str, Response]) -> None:
    with pytest.raises(PictureRefused):
        send(picture, **answers)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"announce": Response(401)}, ServerRefuses),
        ({"announce": expired("revoked")}, ServerRefuses),
        ({"part": expired("url-expired")}, ServerRefuses),
        ({"announce": Response(503)}, ServerBusy),
        ({"part": Response(429)}, ServerBusy),
    ],
)
def test_a_picture_waits_for_what_may_change(
    picture: Path, answers: dict[str, Response], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        send(picture, **answers)
