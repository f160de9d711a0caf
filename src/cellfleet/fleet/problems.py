"""Errors as answers: RFC 9457 problems for programs, pages for browsers. Answers show nothing of the server's internals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from cellfleet.errors import (
    BundleError,
    CellfleetError,
    LineageError,
    StorageError,
    TrustError,
    WireError,
)
from cellfleet.fleet.refusals import TITLES, RequestRefused, conflict
from cellfleet.wire.problem import PROBLEM_TYPE
from cellfleet.wire.reason import Reason, because

log = logging.getLogger(__name__)

ErrorPage = Callable[[Request, RequestRefused], Response]
"""Makes a page of a refusal; the pages put one into ``app.state.error_page``."""
_CODES = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}
_CODES_OF_ERRORS: dict[type[CellfleetError], str] = {
    WireError: "not-understood",
    TrustError: "not-trusted",
    LineageError: "bad-record",
    BundleError: "bad-bundle",
}
_API = ("/api/", "/v1/")
_MOST_ERRORS = 20


def install(app: FastAPI) -> None:
    """Let every error of the application become a problem or a page."""
    app.state.error_page = None
    for kind, make in _MAKERS.items():
        app.add_exception_handler(kind, _handler(make))


def _handler(make: Callable[[Any], RequestRefused]) -> Callable[[Request, Exception], Response]:
    def handle(request: Request, error: Exception) -> Response:
        refusal = make(error)
        if refusal.status >= 500:
            log.error("%s %s: %s", request.method, request.url.path, error)
        return answer(request, refusal)

    return handle


def answer(request: Request, refusal: RequestRefused) -> Response:
    """The refusal as a problem, or as a page for a browser."""
    problem = refusal.problem(instance=request.url.path[:2000])
    page: ErrorPage | None = request.app.state.error_page
    if page is not None and wants_page(request):
        response = page(request, refusal)
        response.status_code = problem.status
    else:
        body = problem.model_dump_json(exclude_defaults=True).encode("utf-8", "replace")
        response = Response(body, problem.status, media_type=PROBLEM_TYPE)
    response.headers.update(refusal.headers)
    return response


def wants_page(request: Request) -> bool:
    """A browser asks for a page, not a program for facts."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(_API)


def defect(scope: Scope) -> Response:
    """The answer to a request that failed by an internal error; the log has the rest under the request's number."""
    number = scope.get("state", {}).get("request_id", "")
    hint = because("hint.log", number=str(number))
    refusal = RequestRefused(500, "internal", because("problem.defect"), hint=hint)
    request = Request(scope)
    return answer(request, refusal)


def _of_http(error: HTTPException) -> RequestRefused:
    code = _CODES.get(error.status_code, "refused" if error.status_code < 500 else "not-available")
    detail: str | Reason = error.detail if isinstance(error.detail, str) else ""
    if detail in ("", "Not Found"):
        missing = error.status_code == 404
        detail = because("problem.no-page") if missing else TITLES.get(error.status_code, "")
    return RequestRefused(error.status_code, code, detail, headers=error.headers)


def _of_validation(error: RequestValidationError) -> RequestRefused:
    found = [
        {"where": ".".join(str(p) for p in e["loc"])[:200], "why": str(e["msg"])[:500]}
        for e in error.errors()[:_MOST_ERRORS]
    ]
    first = f": {found[0]['where']}: {found[0]['why']}" if found else ""
    return RequestRefused(422, "not-understood", f"the request cannot be understood{first}", errors=found)


def _of_database(error: SQLAlchemyError) -> RequestRefused:
    if isinstance(error, IntegrityError):
        return conflict(
            "changed-meanwhile", "another request changed the same data at the same time", hint="reload, then retry"
        )
    if isinstance(error, DataError):
        return RequestRefused(422, "not-storable", "the request holds text or a number that cannot be stored")
    return RequestRefused(
        503, "database", "the database is busy or away", hint="come back soon", headers={"Retry-After": "2"}
    )


def _of_storage(_error: StorageError) -> RequestRefused:
    return RequestRefused(507, "storage", "the server's disk failed", hint="see the server's log")


def _of_message(error: CellfleetError) -> RequestRefused:
    code = next((code for kind, code in _CODES_OF_ERRORS.items() if isinstance(error, kind)), "refused")
    return RequestRefused(422, code, error.message, hint=error.hint)


def _as_it_is(error: RequestRefused) -> RequestRefused:
    return error


_MAKERS: dict[type[Exception], Callable[[Any], RequestRefused]] = {
    RequestRefused: _as_it_is,
    HTTPException: _of_http,
    RequestValidationError: _of_validation,
    OperationalError: _of_database,
    IntegrityError: _of_database,
    DataError: _of_database,
    StorageError: _of_storage,
    CellfleetError: _of_message,
}
