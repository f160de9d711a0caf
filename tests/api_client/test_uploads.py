"""A file in parts: only what is missing, at the addresses that the server gave, without a token."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import pytest

from cellfleet.api_client import ApiClient, PartRefused, ServerBusy, ServerRefuses, upload
from cellfleet.api_client.client import FixedHeaders
from cellfleet.errors import WireError
from cellfleet.ports.http import Response
from cellfleet.wire.uploads import ArtifactRequest
from support_http import Asked, ScriptedHttp

URL = "http://fleet.example"
CONTENT = b"aaabbbc"
FILE = ArtifactRequest(sha256="0" * 64, length=len(CONTENT))
PROBLEM = {"type": "urn:cellfleet:problem:url-expired", "title": "x", "status": 403, "detail": "it has expired"}


@dataclass
class Store:
    """Wants the parts of ``wanted`` in their order; ``fails``: path -> answer instead of a good one."""

    wanted: dict[int, str]
    fails: dict[str, Response] = field(default_factory=dict)

    def answer(self, asked: Asked) -> Response:
        path = asked.url.removeprefix(URL)
        if path in self.fails:
            return self.fails[path]
        if path == "/api/v1/artifacts":
            parts = [{"number": n, "url": url} for n, url in self.wanted.items()]
            return Response(201, {}, json.dumps({"id": "up-1", "part_bytes": 3, "parts": parts}).encode())
        return Response(204)


def send(store: Store) -> tuple[int, ScriptedHttp, list[tuple[int, int, str]]]:
    http, seen = ScriptedHttp(store.answer), []
    api = ApiClient(URL, http, FixedHeaders({"Authorization": "Bearer t"}))
    sent = upload(
        api, "/api/v1/artifacts", FILE, io.BytesIO(CONTENT), part_timeout_s=9, progress=lambda *x: seen.append(x)
    )
    return sent, http, seen


def test_only_the_parts_that_are_missing_are_sent() -> None:
    sent, http, seen = send(Store({3: "/three?sign", 2: "http://store.example/two"}))
    assert sent == 4
    assert [(a.method, a.url) for a in http.asked] == [
        ("POST", f"{URL}/api/v1/artifacts"),
        ("PUT", f"{URL}/three?sign"),
        ("PUT", "http://store.example/two"),
        ("POST", f"{URL}/api/v1/uploads/up-1/complete"),
    ]
    assert [a.body for a in http.asked[1:3]] == [b"c", b"bbb"]
    assert [a.timeout_s for a in http.asked] == [None, 9, 9, None]
    assert ["authorization" in a.headers for a in http.asked] == [True, False, False, True]
    assert seen == [(1, 2, "0.0 MB"), (2, 2, "0.0 MB")]


def test_a_file_that_the_server_has_is_not_sent() -> None:
    done = Response(200, {}, b'{"done": true}')
    sent, http, _ = send(Store({}, {"/api/v1/artifacts": done}))
    assert (sent, len(http.asked)) == (0, 1)


def test_a_part_that_is_refused_is_told_apart_from_a_file_that_is() -> None:
    with pytest.raises(PartRefused, match="part 2") as e:
        send(Store({1: "/one", 2: "/two"}, {"/two": Response(400)}))
    assert (e.value.status, e.value.hint) == (400, "upload the file again; parts that have arrived are not sent again")
    with pytest.raises(PartRefused, match="it has expired") as e:
        send(Store({1: "/one"}, {"/one": Response(403, {}, json.dumps(PROBLEM).encode())}))
    assert e.value.code == "url-expired"
    for path in ("/api/v1/artifacts", "/api/v1/uploads/up-1/complete"):
        with pytest.raises(ServerRefuses) as refusal:
            send(Store({1: "/one"}, {path: Response(422)}))
        assert not isinstance(refusal.value, PartRefused)


@pytest.mark.parametrize("path", ["/api/v1/artifacts", "/one", "/api/v1/uploads/up-1/complete"])
def test_a_busy_server_is_later_everywhere(path: str) -> None:
    with pytest.raises(ServerBusy):
        send(Store({1: "/one"}, {path: Response(503)}))


def test_an_answer_that_is_not_understood() -> None:
    with pytest.raises(WireError):
        send(Store({}, {"/api/v1/artifacts": Response(200, {}, b"<html>")}))
