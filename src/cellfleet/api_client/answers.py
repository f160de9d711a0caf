"""Classify a response of the fleet server: success, temporary failure, or refusal."""

from __future__ import annotations

import contextlib
import json

from cellfleet.errors import FleetError, NetworkError, WireError
from cellfleet.ports.http import Response
from cellfleet.wire.problem import Problem

_NOT_MODIFIED = 304
_BUSY = (408, 425, 429)
_MAX_WAIT_S = 3600.0
_MAX_DETAIL = 500


class ServerBusy(NetworkError):
    """The server cannot handle the request now; a retry may succeed.

    Attributes:
        status: HTTP status: 408, 425, 429 or 500 and above.
        retry_after_s: wait that the server requests, at most one hour; 0: none.
    """

    def __init__(self, message: str, *, status: int, retry_after_s: float = 0.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.retry_after_s = status, retry_after_s


class ServerRefuses(FleetError):
    """The server refuses the request; a retry gives the same result.

    Attributes:
        status: HTTP status.
        code: problem code, such as ``gate-failed`` or ``revoked``; empty when the response is not a fleet server's problem.
    """

    def __init__(self, message: str, *, status: int, code: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.code = status, code


def check(answer: Response, what: str) -> Response:
    """Return a successful response; raise for all others.

    Args:
        answer: the response.
        what: the request, such as ``GET /api/v1/me``; used in the message when the response holds no problem.

    Returns:
        The response, with a status below 300 or 304.

    Raises:
        ServerBusy: the server failed or is overloaded.
        ServerRefuses: the server refuses the request.
    """
    if answer.status < 300 or answer.status == _NOT_MODIFIED:
        return answer
    problem = _problem(answer)
    text = (problem.detail or problem.title) if problem else f"{what}: the server answers {answer.status}"
    hint = problem.hint if problem else ""
    if answer.status >= 500 or answer.status in _BUSY:
        raise ServerBusy(
            text, status=answer.status, retry_after_s=_retry_after_s(answer), hint=hint or "try again later"
        )
    if problem is None:
        hint = "check that this is the address of a fleet server of this version"
    raise ServerRefuses(text, status=answer.status, code=problem.code if problem else "", hint=hint)


def _problem(answer: Response) -> Problem | None:
    """The problem in a response, limited to the fields that this version knows; None: the response holds no problem."""
    with contextlib.suppress(ValueError, AttributeError, WireError):
        facts = {k: v for k, v in json.loads(answer.body).items() if k in Problem.model_fields}
        problem = Problem.model_validate(facts)
        return problem.model_copy(update={"detail": problem.detail[:_MAX_DETAIL]})
    return None


def _retry_after_s(answer: Response) -> float:
    """``Retry-After`` in seconds; 0 for a date or a missing header."""
    with contextlib.suppress(ValueError):
        return min(_MAX_WAIT_S, max(0.0, float(answer.headers.get("retry-after", "0"))))
    return 0.0
