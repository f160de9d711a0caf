"""Plain JSON data in messages: data that every reader can parse and every database can store."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator

MAX_DEPTH = 32
"""Maximum nesting of lists and objects."""
_INT64 = 2**63


def check_plain(value: Any) -> Any:
    """Check that a value is plain JSON data, and return it.

    Raises:
        ValueError: NaN or infinity, an integer beyond 64 bits, a text with NUL or a lone surrogate, a type that is not
            JSON, or too deep nesting. The size is limited by the request.
    """
    left: list[tuple[Any, int]] = [(value, 0)]
    while left:
        found, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels deep")
        if isinstance(found, dict):
            left += [(x, depth + 1) for pair in found.items() for x in pair]
        elif isinstance(found, list | tuple):
            left += [(x, depth + 1) for x in found]
        else:
            _check_one(found)
    return value


def _check_one(value: Any) -> None:
    match value:
        case None | bool():
            return
        case int() if -_INT64 <= value < _INT64:
            return
        case float() if math.isfinite(value):
            return
        case str() if "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value):
            return
    raise ValueError(f"{repr(value)[:40]} cannot be kept as JSON")


def words(text: str, most: int = 2000) -> str:
    """Clean text of other programs (logs, answers, errors) for messages and databases.

    >>> words("a\\0b\\ud800", 3)
    'a b'
    """
    return text.replace("\0", " ").encode("utf-8", "replace").decode()[:most]


def made_plain(value: Any, depth: int = 0) -> Any:
    """The nearest plain JSON data: no NaN, no endless depth, texts as of ``words``."""
    match value:
        case None | bool():
            return value
        case str():
            return words(value)
        case int() if -_INT64 <= value < _INT64:
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict() if depth < MAX_DEPTH:
            return {words(str(k), 200): made_plain(v, depth + 1) for k, v in value.items()}
        case list() | tuple() if depth < MAX_DEPTH:
            return [made_plain(v, depth + 1) for v in value]
    return words(str(value), 100)


PlainDict = Annotated[dict[str, Any], AfterValidator(check_plain)]
"""An object of plain JSON data."""
