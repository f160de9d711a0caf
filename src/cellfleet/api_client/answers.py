"""What an answer of the fleet server means: good, later, or no."""

from __future__ import annotations

import contextlib
import json

from cellfleet.errors import FleetError, NetworkError, WireError
from cellfleet.ports.http import Response
from cellfleet.wire.problem import Problem

_NOT_MODIFIED = 304
_BUSY = (408, 425, 429)
_MOST_WAIT_S = 3600.0
_MOST_DETAIL = 500


class ServerBusy(NetworkError):
    """The server cannot answer now; the same request may succeed later.

    Attributes:
        status: HTTP status: 408, 425, 429 or 500 and above.
        retry_after_s: wait that the server asks for, at most an hour; 0: it asks for none.
    """

    def __init__(self, message: str, *, status: int, retry_after_s: float = 0.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.retry_after_s = status, retry_after_s


class ServerRefuses(FleetError):
    """The server says no, and will say it again.

    Attributes:
        status: HTTP status.
        code: of the problem, such as ``gate-failed`` or ``revoked``; empty when the answer is no problem of a fleet server.
    """

    def __init__(self, message: str, *, status: int, code: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.code = status, code


def check(answer: Response, what: str) -> Response:
    """Give the answer back when it is a good one.

    Args:
        answer: of any status.
        what: the request, as in ``GET /api/v1/me``; part of the message when the answer does not explain itself.

    Returns:
        The answer: a status below 300, or 304.

    Raises:
        ServerBusy: the server has trouble of its own, or too much to do.
        ServerRefuses: no.
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
        hint = "is that the address of a fleet server of this version?"
    raise ServerRefuses(text, status=answer.status, code=problem.code if problem else "", hint=hint)


def _problem(answer: Response) -> Problem | None:
    """The problem in an answer, with what this version knows of it; None: it holds none."""
    with contextlib.suppress(ValueError, AttributeError, WireError):
        facts = {k: v for k, v in json.loads(answer.body).items() if k in Problem.model_fields}
        problem = Problem.model_validate(facts)
        return problem.model_copy(update={"detail": problem.detail[:_MOST_DETAIL]})
    return None


def _retry_after_s(answer: Response) -> float:
    """``Retry-After`` in seconds; a date, or nothing, counts as 0."""
    with contextlib.suppress(ValueError):
        return min(_MOST_WAIT_S, max(0.0, float(answer.headers.get("retry-after", "0"))))
    return 0.0
