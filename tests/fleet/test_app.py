"""What stands around every request: problems in one format, limits of size, headers, numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jsonschema_rs
import pytest
from fastapi import FastAPI, Request
from sqlalchemy.exc import OperationalError

from cellfleet.fleet.openapi_examples import example_of
from cellfleet.wire.problem import PROBLEM_TYPE, Problem
from support_fleet import TestClient


def problem(response: object) -> Problem:
    assert response.headers["content-type"] == PROBLEM_TYPE  # type: ignore[attr-defined]
    return Problem.model_validate(response.json())  # type: ignore[attr-defined]


def test_unknown_address_and_wrong_method(client: TestClient) -> None:
    missing = client.get("/api/v1/nothing")
    assert missing.status_code == 404
    assert problem(missing).code == "not-found"
    assert problem(missing).instance == "/api/v1/nothing"
    wrong = client.delete("/healthz")
    assert wrong.status_code == 405
    assert problem(wrong).code == "method-not-allowed"
    assert wrong.headers["allow"] == "GET"


def test_every_answer_is_sealed(client: TestClient) -> None:
    for path in ("/healthz", "/api/v1/nothing"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert len(headers["x-request-id"]) == 12
    assert client.get("/healthz").headers["x-request-id"] != client.get("/healthz").headers["x-request-id"]


def test_a_defect_tells_nothing_of_our_insides(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/api/v1/broken")
    def broken() -> None:
        raise RuntimeError("secret in the insides")

    response = TestClient(app).get("/api/v1/broken")
    assert response.status_code == 500
    assert problem(response).code == "internal"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in problem(response).hint
    assert "secret in the insides" in caplog.text


def test_a_database_that_is_away(app: FastAPI) -> None:
    @app.get("/api/v1/away")
    def away() -> None:
        raise OperationalError("SELECT password", {}, Exception("connection refused"))

    response = TestClient(app).get("/api/v1/away")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert "SELECT" not in response.text


@pytest.mark.parametrize("announced", [True, False])
def test_100_mb_at_once(client: TestClient, announced: bool) -> None:
    """The body is refused by its announced length, or as soon as it gets too long; not after it was read."""
    piece, sent = b" " * 1_000_000, 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += len(piece)
            yield piece

    headers = {"content-type": "application/json"} | ({"content-length": "100000000"} if announced else {})
    response = client.post("/api/v1/devices/token", content=body(), headers=headers)
    assert response.status_code == 413
    assert problem(response).code == "too-large"


def test_the_description_is_complete(client: TestClient) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    operations = [
        (path, method, operation)
        for path, item in schema["paths"].items()
        for method, operation in item.items()
        if method in ("get", "put", "post", "delete", "patch")
    ]
    tags = {t["name"] for t in schema["tags"]}
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation.get("summary"), where
        assert operation.get("description"), where
        assert operation["tags"], where
        assert set(operation["tags"]) <= tags, where
        assert "422" in operation["responses"], where
        assert "HTTPValidationError" not in str(operation["responses"]), where
        body = operation.get("requestBody", {}).get("content", {})
        for media in body.values():
            assert "schema" in media, where


def test_every_body_has_an_example_that_is_valid(client: TestClient) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    seen = 0
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            answers = [
                schema["components"]["responses"].get(s, r) if "$ref" in r else r
                for s, r in operation["responses"].items()
            ]
            for body in (operation.get("requestBody", {}), *answers):
                for kind, media in body.get("content", {}).items():
                    if "json" in kind:
                        whole = {**media["schema"], "components": schema["components"]}
                        jsonschema_rs.validate(whole, media["example"])
                        seen += 1
            for parameter in operation.get("parameters", ()):
                assert {"example", "examples"} & {*parameter, *parameter["schema"]}, (method, path, parameter["name"])
    assert seen > 500


def test_a_field_without_an_example_is_named() -> None:
    with pytest.raises(LookupError, match=r"A\.b\[0\]\.c: no example"):
        example_of(
            {"$ref": "#/components/schemas/A"},
            {
                "A": {
                    "type": "object",
                    "properties": {"b": {"type": "array", "items": {"$ref": "#/components/schemas/B"}}},
                    "required": ["b"],
                },
                "B": {
                    "type": "object",
                    "properties": {"c": {"type": "string"}, "d": {"type": "integer"}},
                    "required": ["c"],
                },
            },
        )


def test_roles_are_ordered(as_role: Callable[[str], TestClient], client: TestClient) -> None:
    assert client.get("/api/v1/me").status_code == 401
    assert problem(client.get("/api/v1/me")).code == "not-signed-in"
    assert as_role("viewer").get("/api/v1/me").json()["role"] == "viewer"


def test_a_body_of_the_greatest_length_is_read(app: FastAPI) -> None:
    @app.post("/api/v1/count")
    async def count(request: Request) -> int:
        return len(await request.body())

    most = int(app.state.context.settings.max_body_mb * 1_000_000)
    http = TestClient(app)

    def pieces(length: int) -> Iterator[bytes]:
        yield bytes(length)

    assert http.post("/api/v1/count", content=bytes(most)).json() == most
    assert http.post("/api/v1/count", content=pieces(most)).json() == most
    assert http.post("/api/v1/count", content=bytes(most + 1)).status_code == 413
    assert http.post("/api/v1/count", content=pieces(most + 1)).status_code == 413
