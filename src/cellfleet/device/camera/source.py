"""Sources of images: ``replay`` replays a data set, ``watch_folder`` watches a folder that another program fills."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_WELL = re.compile(r"(?<![A-Za-z0-9])([A-P])(\d{1,2})(?![0-9A-Za-z])")
_FIELD = re.compile(r"(?<![A-Za-z])(?:f|field|s|site)[-_]?(\d{1,4})(?![A-Za-z])", re.IGNORECASE)


@dataclass(frozen=True)
class CapturedImage:
    """An image to be stored as a frame.

    Attributes:
        path: of the file.
        original: its name in the source.
        well: a Key.
        time_s: seconds since the first image of the source; None: use the time of storing.
        channels: empty: the source does not name them.
        pixel_size_um: None: the source does not name it.
        position: number of the image in the source, from 0.
        data: its bytes; None: not read yet.
    """

    path: Path
    original: str
    well: str
    field: int = 1
    time_s: float | None = None
    channels: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    position: int = 0
    data: bytes | None = None


class CameraSource(Protocol):
    """Returns images one after the other; an image counts as taken after ``mark_taken``."""

    def next(self) -> CapturedImage | None:
        """The image that is due now; the same one until it is marked. None: no image is due.

        Raises:
            CameraError: the source cannot be read.
        """
        ...

    def mark_taken(self, image: CapturedImage, frame: str) -> None:
        """Record that the image is stored.

        Args:
            image: from ``next``.
            frame: name of the stored frame.
        """
        ...

    def is_exhausted(self) -> bool:
        """Whether no more images will follow."""
        ...

    def is_full(self, frames: int, idle_s: float) -> bool:
        """Whether the experiment ends now.

        Args:
            frames: number of its frames.
            idle_s: seconds since its last frame.
        """
        ...

    def wait_s(self) -> float:
        """Longest wait before the next call of ``next``, in seconds."""
        ...


def well_of(name: str, default: str) -> str:
    """The well in a file name (``A01_t003.tif`` -> ``A01``).

    Args:
        name: of the file.
        default: for names without a well.
    """
    found = _WELL.search(name.replace("_", " "))
    return f"{found[1]}{found[2]}" if found else default


def field_of(name: str) -> int:
    """The field in a file name (``A01_f02.tif`` -> 2), else 1."""
    found = _FIELD.search(name.partition(".")[0])
    return max(1, int(found[1])) if found else 1
