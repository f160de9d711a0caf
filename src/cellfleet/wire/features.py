"""Negotiation: both sides announce the features that they understand, and send only fields that the reader knows.

Messages forbid unknown fields, so a field that an older program does not know would make it refuse the whole message. A
field that is newer than protocol 1 therefore names its feature:

    reason_data: Annotated[Reason | None, Since("reasons")] = None

Instruments and API clients announce their features with every request, the server announces its own with every
answer, in the header ``HEADER``. A reader that announces nothing gets protocol 1 without any feature.
"""

from __future__ import annotations

import functools
import re
import threading
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

ARTIFACTS = "artifacts"
"""The server accepts a ReleaseRequest whose artifact has no ``release_id``."""
NOT_FIELDS: frozenset[str] = frozenset({ARTIFACTS})
"""Features that change the form of a message instead of adding a field; the sender checks them before it sends."""
FEATURES: frozenset[str] = frozenset({"reasons"}) | NOT_FIELDS
"""The features that this version understands; a test holds that the others name fields, and that no field's is missing."""
HEADER = "Cellfleet-Features"
"""HTTP header of requests and answers: names of features, separated by commas."""
ANNOUNCEMENT: Mapping[str, str] = types.MappingProxyType({HEADER: ",".join(sorted(FEATURES))})
"""The header of this program for every request and every answer."""
NONE: frozenset[str] = frozenset()
"""The features of a program that announces nothing."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MOST_FEATURES = 64
_SERVER_ERRORS = 500


@dataclass(frozen=True)
class Since:
    """Annotation of a message's field: a reader knows this field only if it announces the feature.

    The field must have a default, which is what such a reader assumes.
    """

    feature: str


class Peer:
    """The features that the server announced in its latest answer. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._features = NONE

    @property
    def features(self) -> frozenset[str]:
        """Features of the latest answer; none before the first answer."""
        with self._lock:
            return self._features

    def note(self, status: int, headers: Mapping[str, str]) -> None:
        """Record the features that an answer announces.

        An answer without the header comes from an older server, and nothing new is sent to it. An error above 499
        without the header may come from a proxy: it says nothing about the server.

        Args:
            status: HTTP status of the answer.
            headers: of the answer, names in lower case.
        """
        announced = headers.get(HEADER.lower())
        if announced is not None or status < _SERVER_ERRORS:
            with self._lock:
                self._features = read_announcement(announced or "")


def read_announcement(header: str) -> frozenset[str]:
    """The features in a header, including unknown ones; invalid names are skipped.

    >>> sorted(read_announcement("reasons, pins,,Not A Name"))
    ['pins', 'reasons']
    """
    names = (name.strip() for name in header.split(",", _MOST_FEATURES)[:_MOST_FEATURES])
    return frozenset(name for name in names if _NAME.fullmatch(name))


@functools.cache
def features_of(kind: type[BaseModel]) -> frozenset[str]:
    """All features that fields of a message and of its parts name."""
    return _features_of(kind, set())


def used_features(kind: type[BaseModel], features: frozenset[str]) -> frozenset[str]:
    """The announced features that make a difference to messages of this kind; names the form that is sent.

    Args:
        kind: class of the message.
        features: what the reader announced.

    Returns:
        A subset of ``features``; two readers with equal subsets get equal bytes.
    """
    return features & features_of(kind)


def too_new(message: BaseModel, features: frozenset[str]) -> dict[str, Any] | None:
    """The fields of a message that a reader does not know, as pydantic's ``exclude`` takes them.

    Args:
        message: the message to send.
        features: what the reader announced.

    Returns:
        Field -> True, or the same for the field's own parts; None: the reader knows all fields.
    """
    if features_of(type(message)) <= features:
        return None
    found: dict[str, Any] = {}
    for name, field in type(message).model_fields.items():
        if any(isinstance(m, Since) and m.feature not in features for m in field.metadata):
            found[name] = True
        elif inner := _too_new_within(getattr(message, name), features):
            found[name] = inner
    return found or None


def _too_new_within(value: Any, features: frozenset[str]) -> dict[Any, Any] | None:
    match value:
        case BaseModel():
            return too_new(value, features)
        case dict():
            parts = {key: _too_new_within(part, features) for key, part in value.items()}
        case list() | tuple():
            parts = {index: _too_new_within(part, features) for index, part in enumerate(value)}
        case _:
            return None
    return {key: part for key, part in parts.items() if part} or None


def _features_of(kind: Any, seen: set[Any]) -> frozenset[str]:
    """Features of a class, or of any type that is made of classes (unions, tuples, annotations)."""
    if not isinstance(kind, type) or get_args(kind):
        return NONE.union(*(_features_of(part, seen) for part in get_args(kind)))
    if kind in seen or not issubclass(kind, BaseModel):
        return NONE
    seen.add(kind)
    fields = kind.model_fields.values()
    own = frozenset(m.feature for field in fields for m in field.metadata if isinstance(m, Since))
    return own.union(*(_features_of(field.annotation, seen) for field in fields))
