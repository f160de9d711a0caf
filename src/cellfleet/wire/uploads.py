"""Files that come in parts: thumbnails, overlays, masks and raw frames of devices, artifacts of API clients."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cellfleet.wire.base import Key, Message, Sha256

PictureKind = Literal["thumbnail", "overlay", "mask", "raw"]


class UploadRequest(Message):
    """POST /api/v1/uploads: a device announces a file of a frame.

    Attributes:
        pin: of the experiment when the frame was segmented; a file of a higher pin replaces that of a lower pin.
        length: bytes.
    """

    kind: PictureKind
    experiment: Key = Field(examples=["plate-7"])
    frame: Key = Field(examples=["A1_t0001"])
    pin: int = Field(default=0, ge=0, le=1_000_000)
    sha256: Sha256
    length: int = Field(ge=1, le=2**40, examples=[8800000])


class ArtifactRequest(Message):
    """POST /api/v1/artifacts: an API client announces an artifact."""

    sha256: Sha256
    length: int = Field(ge=1, le=2**40, examples=[8800000])


class UploadPart(Message):
    """The address for a part, by PUT without further authorisation; it expires."""

    number: int = Field(ge=1, examples=[1])
    url: str = Field(examples=["/api/v1/uploads/.../parts/1?..."])


class UploadReply(Message):
    """The missing parts, of ``part_bytes`` bytes each except the last; ``done``: the server has all bytes already."""

    done: bool = False
    id: str = ""
    part_bytes: int = Field(default=0, ge=0)
    parts: tuple[UploadPart, ...] = ()
