"""What the fleet server refuses, as errors that know no HTTP library: ``app.py`` makes problems (RFC 9457) or pages of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cellfleet.errors import FleetError
from cellfleet.wire.problem import Problem
from cellfleet.wire.reason import Reason, because, english, text_reason

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


class RequestRefused(FleetError):
    """The server refuses a request.

    Args:
        status: HTTP status, 400 to 599.
        code: last part of the problem's type: lower-case letters, digits and hyphens; API clients rely on it.
        detail: what is wrong here; a reason is translated by the pages.
        hint: what to do next.
        title: the kind of error in words (default: by status).
        errors: fields that are wrong: ``{"where": ..., "why": ...}``.
        headers: extra headers of the answer, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str | Reason,
        *,
        hint: str | Reason = "",
        title: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.reason, self.hint_reason = _reason(detail), _reason(hint)
        super().__init__(english(self.reason), hint=english(self.hint_reason))
        self.status, self.code, self.detail = status, code, self.message
        self.title = title or TITLES.get(status, "Refused")
        self.errors = tuple(dict(e) for e in errors)
        self.headers = dict(headers or {})

    def problem(self, instance: str = "") -> Problem:
        """The refusal as a message; ``instance`` is the path of the request."""
        return Problem(
            type=f"urn:cellfleet:problem:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            hint=self.hint,
            instance=instance,
            errors=self.errors,
        )


def _reason(text: str | Reason) -> Reason:
    return text if isinstance(text, Reason) else text_reason(text)


def bad_request(
    code: str, detail: str | Reason, *, hint: str | Reason = "", errors: Sequence[Mapping[str, str]] = ()
) -> RequestRefused:
    """422: the request is well-formed but its content is invalid."""
    return RequestRefused(422, code, detail, hint=hint, errors=errors)


def unauthorized(code: str, detail: str | Reason, *, hint: str | Reason = "") -> RequestRefused:
    """401: not signed in, or an invalid or expired token."""
    return RequestRefused(401, code, detail, hint=hint, headers={"WWW-Authenticate": 'Bearer realm="cellfleet"'})


def forbidden(detail: str | Reason, *, code: str = "forbidden", hint: str | Reason = "") -> RequestRefused:
    """403: known, but not allowed."""
    return RequestRefused(403, code, detail, hint=hint)


def not_found(what: str, *, hint: str | Reason = "") -> RequestRefused:
    """404: ``what`` ("device XYZ-007") does not exist."""
    return RequestRefused(404, "not-found", because("problem.not-found", what=what), hint=hint or because("hint.lists"))


def conflict(code: str, detail: str | Reason, *, hint: str | Reason = "") -> RequestRefused:
    """409: the current state does not allow the request."""
    return RequestRefused(409, code, detail, hint=hint)


def too_large(detail: str, *, hint: str = "send less at once, or in parts") -> RequestRefused:
    """413: more bytes than the limit."""
    return RequestRefused(413, "too-large", detail, hint=hint)


def too_many(detail: str | Reason, retry_after_s: int) -> RequestRefused:
    """429: a limit of rate; ``Retry-After`` says when to come back."""
    return RequestRefused(
        429,
        "too-many-requests",
        detail,
        hint=because("hint.retry-after", seconds=retry_after_s),
        headers={"Retry-After": str(retry_after_s)},
    )
