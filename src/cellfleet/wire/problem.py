"""Errors of the API: RFC 9457 problem details, one format everywhere."""

from __future__ import annotations

from pydantic import Field

from cellfleet.wire.base import Message

PROBLEM_TYPE = "application/problem+json"


class Problem(Message):
    """An error.

    Attributes:
        type: ``urn:cellfleet:problem:<code>``; for programs.
        title: kind of the error, as text.
        status: HTTP status.
        detail: what is wrong in this case.
        hint: what to do next.
        instance: path of the request.
        errors: invalid fields: where and why.
    """

    type: str = Field(pattern=r"^urn:cellfleet:problem:[a-z0-9-]+$", examples=["urn:cellfleet:problem:gate-failed"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(ge=400, le=599, examples=[409])
    detail: str = ""
    hint: str = ""
    instance: str = ""
    errors: tuple[dict[str, str], ...] = ()

    @property
    def code(self) -> str:
        """The last part of the type."""
        return self.type.rsplit(":", 1)[-1]
