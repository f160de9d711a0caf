"""What the fleet server refuses, as errors that know no HTTP library: ``app.py`` makes problems (RFC 9457) or pages of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cellfleet.errors import FleetError
from cellfleet.wire.problem import Problem

TITLES: Mapping[int, str] = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    410: "Gone",
    411: "Length required",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    422: "Not understood",
    429: "Too many requests",
    431: "Headers too large",
    500: "Internal error",
    503: "Not available now",
    507: "No space left",
}


class Refusal(FleetError):
    """The server says no.

    Args:
        status: HTTP status, 400 to 599.
        word: last part of the problem's type: lower-case letters, digits and hyphens; what programs look at.
        detail: what is wrong here.
        hint: what to do next.
        title: the kind of error in words (default: by status).
        errors: fields that are wrong: ``{"where": ..., "why": ...}``.
        headers: extra headers of the answer, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        word: str,
        detail: str,
        *,
        hint: str = "",
        title: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail, hint=hint)
        self.status, self.word, self.detail = status, word, detail
        self.title = title or TITLES.get(status, "Refused")
        self.errors = tuple(dict(e) for e in errors)
        self.headers = dict(headers or {})

    def problem(self, instance: str = "") -> Problem:
        """The refusal as a message; ``instance`` is the path of the request."""
        return Problem(
            type=f"urn:cellfleet:problem:{self.word}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            hint=self.hint,
            instance=instance,
            errors=self.errors,
        )


def bad_request(word: str, detail: str, *, hint: str = "", errors: Sequence[Mapping[str, str]] = ()) -> Refusal:
    """422: the request is understood but what it says cannot be."""
    return Refusal(422, word, detail, hint=hint, errors=errors)


def unauthorized(word: str, detail: str, *, hint: str = "") -> Refusal:
    """401: nobody, or a token that is not valid (any more)."""
    return Refusal(401, word, detail, hint=hint, headers={"WWW-Authenticate": 'Bearer realm="cellfleet"'})


def forbidden(detail: str, *, word: str = "forbidden", hint: str = "") -> Refusal:
    """403: known, but not allowed."""
    return Refusal(403, word, detail, hint=hint)


def not_found(what: str, *, hint: str = "") -> Refusal:
    """404: there is no such ``what`` ("device XYZ-007")."""
    return Refusal(404, "not-found", f"there is no {what}", hint=hint or "check the name; lists show what there is")


def conflict(word: str, detail: str, *, hint: str = "") -> Refusal:
    """409: the state of things forbids it."""
    return Refusal(409, word, detail, hint=hint)


def too_large(detail: str, *, hint: str = "send less at once, or in parts") -> Refusal:
    """413: more bytes than are taken."""
    return Refusal(413, "too-large", detail, hint=hint)


def too_many(detail: str, retry_after_s: int) -> Refusal:
    """429: a limit of rate; ``Retry-After`` says when to come back."""
    return Refusal(
        429,
        "too-many-requests",
        detail,
        hint=f"come back in {retry_after_s} s",
        headers={"Retry-After": str(retry_after_s)},
    )
