"""The frame: one image with named channels, as every part of cellfleet passes it on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.errors import ReadError

COLOURS = ("red", "green", "blue")
"""Names of the channels of a colour image."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of one field at one time.

    Attributes:
        pixels: uint8 or uint16, [C, H, W], C-contiguous, the values as the file holds them.
        channels: C different names.
        pixel_size_um: side of a pixel in micrometres; None when it is unknown.
        metadata: what else is known (plate, well, field, time_s, exposure_ms, focus_um ...), all as text.
        source: where it came from, for messages.
    """

    pixels: NDArray[Any]
    channels: tuple[str, ...]
    pixel_size_um: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.dtype not in (np.uint8, np.uint16) or 0 in self.pixels.shape:
            raise ReadError(
                f"{self.source or 'frame'}: pixels are {self.pixels.dtype} {list(self.pixels.shape)}",
                hint="a frame is uint8 or uint16 of shape [channels, height, width], at least one pixel",
            )
        if len(self.channels) != self.pixels.shape[0] or len(set(self.channels)) != len(self.channels):
            raise ReadError(
                f"{self.source or 'frame'}: {self.pixels.shape[0]} channel(s) named {', '.join(self.channels)}",
                hint="give every channel a name of its own",
            )

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self.pixels.shape[2])

    def with_pixel_size(self, pixel_size_um: float | None) -> Frame:
        """The same frame with another pixel size; None changes nothing."""
        return self if pixel_size_um is None else replace(self, pixel_size_um=pixel_size_um)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a format module hands over, before the channels get their final names.

    Attributes:
        pixels: any dtype, [C, H, W].
        names: channel names in the file, else empty.
        colour: the channels are the red, green and blue of a colour image (alpha is dropped).
        pages: C counts pages of a stack whose axis the file does not name; they may be channels or something else.
        pixel_size_um, metadata: as in Frame.
    """

    pixels: NDArray[Any]
    names: tuple[str, ...] = ()
    colour: bool = False
    pages: bool = False
    pixel_size_um: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def to_frame(image: Decoded, wanted: Sequence[str] | None, source: str) -> Frame:
    """Check the pixels and name the channels.

    The rule for channels, first match counts:

    1. A colour image has the channels red, green, blue. When one channel of another name is wanted and the three are
       identical, it is that channel; when they differ, it is an error.
    2. Wanted names that the file has (upper and lower case alike) are picked by name, in the order wanted.
    3. As many wanted names as channels: they name the channels in the file's order.
    4. Nothing wanted: the file's names, else c0, c1, ...
    5. Pages of a stack whose axis the file does not name count as channels only by rule 3.

    Raises:
        ReadError: float or other pixels, or channels that do not fit.
    """
    check_pixels(image.pixels, source)
    pixels, names = _choose(image, tuple(wanted) if wanted else None, source)
    return Frame(np.ascontiguousarray(pixels), names, image.pixel_size_um, dict(image.metadata), source)


def check_pixels(pixels: NDArray[Any], source: str) -> None:
    """Raise ReadError unless the dtype is uint8 or uint16 and there is at least one pixel."""
    if pixels.dtype in (np.uint8, np.uint16) and pixels.size:
        return
    if pixels.size == 0:
        raise ReadError(f"{source}: the image has no pixels", hint="export it again from the microscope's program")
    raise ReadError(
        f"{source}: the pixels are {pixels.dtype}; cellfleet reads uint8 and uint16",
        hint="export the raw 8- or 16-bit image; or convert with one fixed scale for all images, "
        "in Fiji: Image > Adjust > Brightness/Contrast > Set, then Image > Type > 16-bit",
    )


def _choose(image: Decoded, wanted: tuple[str, ...] | None, source: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    pixels, count = image.pixels, image.pixels.shape[0]
    names = COLOURS if image.colour else tuple(clean_name(n, i) for i, n in enumerate(image.names))
    if wanted is None:
        if image.pages:
            raise _pages_error(count, source)
        return pixels, _distinct(names) if names else tuple(f"c{i}" for i in range(count))
    if image.colour and len(wanted) == 1 and wanted[0].casefold() not in COLOURS:
        return _grey(pixels, wanted[0], source), wanted
    known = {n.casefold(): i for i, n in reversed(list(enumerate(names)))}
    hits = [known.get(w.casefold()) for w in wanted]
    if all(h is not None for h in hits):
        return pixels[[h for h in hits if h is not None]] if len(wanted) != count or hits != list(range(count)) else (
            pixels
        ), wanted
    if len(wanted) == count and not any(h is not None for h in hits):
        return pixels, wanted
    if image.pages:
        raise _pages_error(count, source)
    have = ", ".join(names) if names else f"{count} unnamed channel(s)"
    raise ReadError(
        f"{source}: the channels {', '.join(wanted)} are wanted, the file has {have}",
        hint="set data.channels in cellfleet.toml to the file's channels, or export the wanted ones",
    )


def _grey(pixels: NDArray[Any], name: str, source: str) -> NDArray[Any]:
    if (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all():
        return pixels[:1]
    raise ReadError(
        f"{source}: a colour image whose red, green and blue differ, but the one channel {name!r} is wanted",
        hint="export it as grey values, or name the channels you mean: red, green, blue",
    )


def _pages_error(count: int, source: str) -> ReadError:
    return ReadError(
        f"{source}: {count} pages, and the file does not say whether they are channels, times or z planes",
        hint="save one page per file, or as OME-TIFF with its axes; or name as many channels as there are pages",
    )


def clean_name(name: str, index: int) -> str:
    """A channel name of the file in the letters that models allow (A-Z a-z 0-9 _ -, at most 32)."""
    text = re.sub(r"[^A-Za-z0-9_-]+", "-", name.strip()).strip("-_")[:32]
    return text or f"c{index}"


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) == len(names):
        return names
    return tuple(f"{n[:28]}-{i}" if names.count(n) > 1 else n for i, n in enumerate(names))
