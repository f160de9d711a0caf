"""Base of all messages: a version, no unknown fields, and names that are safe as file names."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from cellfleet.errors import WireError
from cellfleet.wire.features import too_new

PROTOCOL: Literal[1] = 1
"""Version of the messages between device and server. A new optional field has a feature instead (``features``)."""

DeviceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["XYZ-007"])]
"""Name of an instrument, as on its label (``XYZ-007``)."""
DeviceId = Annotated[str, Field(pattern=r"^dev-[0-9a-f]{12}$", examples=["dev-0123456789ab"])]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")]
"""A name that is safe as a part of a path: experiments, frames, wells, groups."""
Sha256 = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", examples=["2b77b9af54c800a688cfa517f8fbeb7514eec4d7730a8c4cd9530e77d950bba9"])
]
SemVer = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$", max_length=64, examples=["1.2.0"])]
Time = Annotated[AwareDatetime, Field(examples=["2026-03-02T09:00:00Z"])]
"""A time with its zone; UTC by convention."""
Text = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")]
"""A sentence or two; no NUL, which databases refuse."""


class Message(BaseModel):
    """Base of messages: frozen, no unknown fields, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self, features: frozenset[str] | None = None) -> bytes:
        """The message as JSON.

        Args:
            features: what the reader announced; fields of other features are omitted. None: the whole message, for
                files of this program.
        """
        return self.model_dump_json(exclude=_too_new(self, features)).encode()

    def to_data(self, features: frozenset[str] | None = None) -> dict[str, Any]:
        """The message as plain JSON data; ``features`` as of ``to_json``."""
        return self.model_dump(mode="json", exclude=_too_new(self, features))


def _too_new(message: Message, features: frozenset[str] | None) -> dict[str, Any] | None:
    return None if features is None else too_new(message, features)


M = TypeVar("M", bound=Message)


def parse(kind: type[M], data: bytes | str) -> M:
    """Read a message.

    Args:
        kind: class of the message.
        data: JSON text.

    Returns:
        The message.

    Raises:
        WireError: not JSON, or not a valid message; the text names the first invalid field.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as e:
        raise _wire_error(kind, e) from e


def parse_data(kind: type[M], data: Any) -> M:
    """Read a message from plain JSON data.

    Args:
        kind: class of the message.
        data: result of a JSON parser.

    Returns:
        The message.

    Raises:
        WireError: not a valid message.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as e:
        raise _wire_error(kind, e) from e


def is_device_id(text: str) -> bool:
    """Whether the text is a valid DeviceId; a name of an instrument must not be one."""
    return re.fullmatch(r"dev-[0-9a-f]{12}", text) is not None


def is_key(text: str) -> bool:
    """Whether the text is a valid Key."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", text) is not None


def _wire_error(kind: type[Message], error: ValidationError) -> WireError:
    first = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"])
    return WireError(
        f"{kind.__name__}{': ' + where if where else ''}: {first['msg']}",
        hint="both sides must speak the same version; update the older one",
    )
