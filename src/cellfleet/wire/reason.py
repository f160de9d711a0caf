"""Reasons as data: a code and its values. The English text is made of them; pages translate by code.

>>> reason = because("probation.memory", memory_mb=1446.2, limit_mb=800)
>>> english(reason)
'the segmenter uses 1446 MB; the limit is 800 MB'

Messages carry the text (for programs of an earlier version, and for logs) and the data beside it. A text without data, from
a program of an earlier version or from outside, is a reason with the code ``text``; it is shown as it is.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from cellfleet.wire.base import Message, Text
from cellfleet.wire.features import Since
from cellfleet.wire.plain_json import words
from cellfleet.wire.reason_texts import TEXTS

TEXT_ONLY = "text"
"""Code of a reason that is a text and nothing else."""
JOINED = "; "
MAX_DEPTH = 7
"""Levels of reasons within reasons; telemetry carries no more."""
_MOST_PARTS = 16

Value = Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | Text


class Reason(Message):
    """Why something happened, or is in its state.

    Attributes:
        code: key of ``reason_texts.TEXTS``; a newer program may send codes that this one does not know.
        values: placeholder of the template -> value; units are in the names.
        parts: the reasons that stand for ``{parts}`` in the template.
    """

    code: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$", examples=["probation.memory"])
    values: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")], Value] = Field(
        default={}, max_length=16, examples=[{"memory_mb": 1446.2, "limit_mb": 800}]
    )
    parts: tuple[Reason, ...] = Field(default=(), max_length=_MOST_PARTS, examples=[()])

    @property
    def depth(self) -> int:
        """Levels of reasons, from 1."""
        return 1 + max((part.depth for part in self.parts), default=0)

    @model_validator(mode="after")
    def _is_flat(self) -> Reason:
        if self.depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels of reasons")
        return self


class _Formatter(string.Formatter):
    """Shows a value that does not fit its format (text for a number) unchanged."""

    def format_field(self, value: Any, format_spec: str) -> str:
        try:
            return str(super().format_field(value, format_spec))
        except ValueError:
            return str(value)


_FORMATTER = _Formatter()


def because(code: str, /, *parts: Reason, **values: str | float) -> Reason:
    """Create a reason.

    Args:
        code: key of ``TEXTS``.
        parts: reasons within it, at most 16; further ones are omitted. One that is nested too deep becomes a text.
        values: for the placeholders of the template. Texts of other programs become plain; numbers that are not finite
            become texts.
    """
    within = tuple(p if p.depth < MAX_DEPTH else text_reason(english(p)) for p in parts[:_MOST_PARTS])
    return Reason(code=code, values={k: _plain(v) for k, v in values.items()}, parts=within)


def text_reason(text: str) -> Reason:
    """A reason without a code: text of another program, or stored by an earlier version."""
    return because(TEXT_ONLY, text=text)


def joined(reasons: Sequence[Reason]) -> Reason | None:
    """Combine several reasons into one; None: there are none."""
    if len(reasons) < 2:
        return reasons[0] if reasons else None
    return because("several", *reasons)


def render(reason: Reason, translate: Callable[[str], str] = str, join: str = JOINED) -> str:
    """The text of a reason.

    Args:
        reason: its code, and those of its parts, are known.
        translate: template -> template in the reader's language.
        join: stands between parts.

    Raises:
        KeyError: an unknown code, or a value is missing.
    """
    parts = join.join(render(part, translate, join) for part in reason.parts)
    return _FORMATTER.vformat(translate(TEXTS[reason.code]), (), {**reason.values, "parts": parts})


def english(reason: Reason | None) -> str:
    """The English text, cut to the length of ``Text``; empty for None."""
    if reason is None:
        return ""
    try:
        return words(render(reason))
    except KeyError:
        return words(f"{reason.code} {dict(reason.values)}")


def text_and_data(reason: Reason | None) -> tuple[str, dict[str, Any] | None]:
    """A reason as it is stored: its English text, and its data as plain JSON data."""
    return english(reason), None if reason is None else reason.model_dump(mode="json")


def read_reason(text: str, data: Reason | Mapping[str, Any] | None) -> Reason | None:
    """The reason of a message or of a stored row.

    Args:
        text: the English text beside the data.
        data: None: it comes from an earlier version.

    Returns:
        The data where this program knows its codes, else the text as a reason; None for neither.
    """
    if data is not None:
        try:
            found = data if isinstance(data, Reason) else Reason.model_validate(data)
            render(found)
        except (ValidationError, KeyError):
            pass
        else:
            return found
    return text_reason(text) if text else None


def read_reasons(texts: Sequence[str], data: Sequence[Any]) -> tuple[Reason, ...]:
    """As ``read_reason``, for texts and their data in the same order; data of another length is ignored."""
    beside = list(data) if len(data) == len(texts) else [None] * len(texts)
    found = (read_reason(text, one) for text, one in zip(texts, beside, strict=True))
    return tuple(reason for reason in found if reason is not None)


def _plain(value: str | float) -> str | float:
    if isinstance(value, str):
        return words(value)
    return value if isinstance(value, int) or math.isfinite(value) else str(value)


def _from_stored(value: Any) -> Any:
    return (text_reason(value) if value else None) if isinstance(value, str) else value


def _to_stored(reason: Reason | None) -> Any:
    if reason is None:
        return ""
    if reason.code == TEXT_ONLY:
        return str(reason.values["text"])
    return reason.model_dump(mode="json")


StoredReason = Annotated[
    Reason | None, BeforeValidator(_from_stored), PlainSerializer(_to_stored, return_type=Any, when_used="always")
]
"""Field of a small file of this program: a reason, or the text that an earlier version wrote there."""

ReasonData = Annotated[Reason | None, Since("reasons")]
"""Field of a message beside its English text: what the text is made of."""
