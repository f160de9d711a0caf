"""What a camera gives: shots. The sources are ``replay`` (a data set again) and ``watched`` (a folder that others fill)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_WELL = re.compile(r"(?<![A-Za-z0-9])([A-P])(\d{1,2})(?![0-9A-Za-z])")
_FIELD = re.compile(r"(?<![A-Za-z])(?:f|field|s|site)[-_]?(\d{1,4})(?![A-Za-z])", re.IGNORECASE)


@dataclass(frozen=True)
class CapturedImage:
    """One image that waits to be taken.

    Attributes:
        path: where its bytes are now.
        original: its name, as it is there.
        well: a Key.
        time_s: since the first shot of the source; None: the time when it is taken counts.
        channels, pixel_size_um: where the source tells them.
        position: number of the shot in the source, from 0.
        data: its bytes, where they were read already.
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
    """Gives shots, one after the other. What it told is taken only after ``took``."""

    def next(self) -> CapturedImage | None:
        """The shot that is due now; the same again until it was taken. None: nothing is due.

        Raises:
            CameraError: the source cannot give any.
        """
        ...

    def took(self, shot: CapturedImage, frame: str) -> None:
        """It is on the disk as that frame."""
        ...

    def is_over(self) -> bool:
        """There will be no more."""
        ...

    def is_full(self, frames: int, idle_s: float) -> bool:
        """The experiment ends now: it has so many frames, and so long nothing came."""
        ...

    def wait_s(self) -> float:
        """When to ask again, at the latest."""
        ...


def well_of(name: str, default: str) -> str:
    """The well in a file name (``A01_t003.tif`` -> ``A01``), else the default."""
    found = _WELL.search(name.replace("_", " "))
    return f"{found[1]}{found[2]}" if found else default


def field_of(name: str) -> int:
    """The field in a file name (``A01_f02.tif`` -> 2), else 1."""
    found = _FIELD.search(name.partition(".")[0])
    return max(1, int(found[1])) if found else 1
