"""Good, later, no: what an answer means."""

from __future__ import annotations

import json

import pytest

from cellfleet.api_client import ServerBusy, ServerRefuses, check
from cellfleet.errors import NetworkError
from cellfleet.ports.http import Response

REFUSED = {
    "type": "urn:cellfleet:problem:gate-failed", "title": "Conflict", "status": 409, "detail": "AP50 is 0.1",
    "hint": "override it", "instance": "/api/v1/releases",
}  # fmt: skip


@pytest.mark.parametrize("status", [200, 201, 204, 299, 304])
def test_a_good_answer_comes_back(status: int) -> None:
    answer = Response(status, {}, b"x")
    assert check(answer, "GET /x") is answer


@pytest.mark.parametrize("status", [300, 301, 400, 401, 403, 404, 409, 413, 416, 422])
def test_no_is_no(status: int) -> None:
    with pytest.raises(ServerRefuses, match=f"GET /x: the server answers {status}") as e:
        check(Response(status, {"retry-after": "5"}, b"<html>"), "GET /x")
    assert (e.value.status, e.value.code) == (status, "")
    assert "address" in e.value.hint


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 507, 599])
def test_later_is_a_network_error(status: int) -> None:
    with pytest.raises(NetworkError) as e:
        check(Response(status, {}, b""), "GET /x")
    assert isinstance(e.value, ServerBusy)
    assert (e.value.status, e.value.retry_after_s) == (status, 0.0)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("77", 77), ("1.5", 1.5), ("-3", 0), ("99999", 3600), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("nan", 0), ("", 0)],
)
def test_the_wait_that_the_server_asks_for_is_bounded(header: str, wait_s: float) -> None:
    with pytest.raises(ServerBusy) as e:
        check(Response(429, {"retry-after": header}), "GET /x")
    assert e.value.retry_after_s == wait_s


def test_a_problem_explains_itself() -> None:
    with pytest.raises(ServerRefuses) as e:
        check(Response(409, {}, json.dumps(REFUSED).encode()), "POST /api/v1/releases")
    assert (e.value.message, e.value.code, e.value.hint) == ("AP50 is 0.1", "gate-failed", "override it")


def test_a_problem_of_a_newer_server_is_understood() -> None:
    newer = {**REFUSED, "detail": "", "trace": {"id": 7}}
    with pytest.raises(ServerRefuses) as e:
        check(Response(409, {}, json.dumps(newer).encode()), "GET /x")
    assert (e.value.message, e.value.code) == ("Conflict", "gate-failed")


def test_a_busy_server_explains_itself_too() -> None:
    busy = {**REFUSED, "type": "urn:cellfleet:problem:database", "status": 503, "detail": "the database is away"}
    with pytest.raises(ServerBusy, match="the database is away") as e:
        check(Response(503, {"retry-after": "2"}, json.dumps(busy).encode()), "GET /x")
    assert (e.value.retry_after_s, e.value.hint) == (2.0, "override it")


@pytest.mark.parametrize(
    "body", [b"[1]", b"null", b'"x"', b"{}", b'{"type": "about:blank", "title": "x", "status": 409}']
)
def test_json_that_is_no_problem(body: bytes) -> None:
    with pytest.raises(ServerRefuses, match="the server answers 409"):
        check(Response(409, {}, body), "GET /x")


def test_a_long_detail_is_cut() -> None:
    with pytest.raises(ServerRefuses) as e:
        check(Response(409, {}, json.dumps({**REFUSED, "detail": "x" * 10_000}).encode()), "GET /x")
    assert len(e.value.message) == 500
