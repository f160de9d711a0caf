"""Tokens that are renewed once and shown to the server alone; the announcement of features."""

from __future__ import annotations

import pytest

from cellfleet.api_client import ApiClient, ServerRefuses
from cellfleet.api_client.client import FixedHeaders
from cellfleet.ports.http import Response
from cellfleet.wire.features import ANNOUNCEMENT, HEADER
from support_http import Asked, ScriptedHttp

URL = "http://fleet.example"


class Tokens:
    """t0, t1 ...: a new one after each that was forgotten."""

    def __init__(self) -> None:
        self.count = 0

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer t{self.count}"}

    def forget_token(self) -> None:
        self.count += 1


def accepts(token: str) -> ScriptedHttp:
    def answer(asked: Asked) -> Response:
        return Response(200 if asked.headers.get("authorization") == f"Bearer {token}" else 401)

    return ScriptedHttp(answer)


def test_a_token_that_is_refused_is_renewed_once() -> None:
    http = accepts("t1")
    assert ApiClient(URL + "/", http, Tokens()).request("PUT", "/a", b"{}").status == 200
    assert [(a.method, a.url, a.body) for a in http.asked] == [("PUT", f"{URL}/a", b"{}")] * 2


def test_a_token_that_stays_refused_is_an_error() -> None:
    http = accepts("t9")
    with pytest.raises(ServerRefuses) as e:
        ApiClient(URL, http, Tokens()).request("GET", "/a")
    assert e.value.status == 401
    assert len(http.asked) == 2


def test_what_cannot_be_renewed_is_not_sent_again() -> None:
    http = accepts("t1")
    with pytest.raises(ServerRefuses):
        ApiClient(URL, http, FixedHeaders({"Authorization": "Bearer old"})).request("POST", "/a", b"{}")
    assert len(http.asked) == 1


def test_headers_of_a_request() -> None:
    http = ScriptedHttp(lambda _: Response(200))
    api = ApiClient(URL, http, Tokens())
    api.request("GET", "/a")
    api.request("POST", "/a", b"{}")
    api.request(
        "POST", "/a", b"x", {"Content-Type": "text/plain", "Accept": "text/csv", "Authorization": "Bearer other"}
    )
    shown = [{k: v for k, v in a.headers.items() if k != HEADER.lower()} for a in http.asked]
    token = {"authorization": "Bearer t0"}
    assert shown == [
        {"accept": "application/json", **token},
        {"accept": "application/json", "content-type": "application/json", **token},
        {"accept": "text/csv", "content-type": "text/plain", **token},
    ]
    assert {a.headers[HEADER.lower()] for a in http.asked} == {ANNOUNCEMENT[HEADER]}


def test_what_the_server_announces_is_noted_from_every_answer() -> None:
    http = ScriptedHttp(lambda _: Response(200, {HEADER.lower(): "a,b"}))
    seen: list[int] = []
    api = ApiClient(URL, http, Tokens(), on_answer=lambda answer: seen.append(answer.status))
    api.send("GET", "/a")
    assert (api.peer.features, seen) == (frozenset("ab"), [200])


def test_another_host_gets_neither_token_nor_announcement_and_says_nothing_about_the_server() -> None:
    http = ScriptedHttp(lambda asked: Response(200, {HEADER.lower(): "a" if asked.url.startswith(URL + "/") else "b"}))
    seen: list[int] = []
    api = ApiClient(URL, http, Tokens(), on_answer=lambda answer: seen.append(answer.status))
    api.send("GET", "/a")
    api.send_open("PUT", "http://fleet.example.other/part", b"x", timeout_s=7)
    assert {"authorization", HEADER.lower()}.isdisjoint(http.asked[-1].headers)
    assert http.asked[-1].timeout_s == 7
    assert (api.peer.features, seen) == (frozenset("a"), [200])
