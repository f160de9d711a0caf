"""Images and masks in: one door for all formats.

TIFF, BigTIFF, OME-TIFF and PNG are recognised by their first bytes, never by their names; OME-Zarr is a folder. A file's
bytes are read once, so a digest and the pixels always belong together. JPEG is refused: its loss moves outlines and
intensities, and a mask saved so has no exact labels. uint8 and uint16 only; nothing is scaled or converted in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.canonical import digest_of, sha256_hex
from cellfleet.data.files import read_bytes
from cellfleet.data.images import png, tiff
from cellfleet.data.images.frame import Decoded, Frame, to_frame
from cellfleet.errors import ReadError

_INSTANCES = "save instance labels: an integer image with 0 for background and a number of its own for every object"
_OTHERS = {b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", b"\x93NUMPY": "NumPy", b"PK\x03\x04": "zip"}


@dataclass(frozen=True, eq=False)
class Raw:
    """The bytes of one image: a file's, or those of the files of an OME-Zarr image by their relative names."""

    data: bytes | Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        """SHA-256 of the file; for OME-Zarr of the canonical JSON of [name, SHA-256] pairs in the order of names."""
        if isinstance(self.data, bytes):
            return sha256_hex(self.data)
        return digest_of([[name, sha256_hex(self.data[name])] for name in sorted(self.data)])


def read_image(
    path: str | Path,
    *,
    channels: Sequence[str] | None = None,
    pixel_size_um: float | None = None,
    time: int | None = None,
    z: int | None = None,
) -> Frame:
    """Read one image.

    Args:
        path: a TIFF, OME-TIFF or PNG file, or the folder of an OME-Zarr image (of a plate: ``p.zarr/A/1/0``).
        channels: names wanted; see :func:`cellfleet.data.images.frame.to_frame` for the rule. None: as the file names them.
        pixel_size_um: the pixel size where the file does not state it.
        time, z: which time and z plane, from 0, of a file that has several (refused otherwise).

    Returns:
        A frame of uint8 or uint16 pixels [C, H, W].

    Raises:
        ReadError: the file cannot be read as such; the message names file and reason, the hint what to do.
    """
    file = Path(path)
    frame = decode_image(load_raw(file), str(file), channels=channels, time=time, z=z)
    return frame if frame.pixel_size_um is not None else frame.with_pixel_size(pixel_size_um)


def read_mask(path: str | Path) -> NDArray[np.uint32]:
    """Read a mask of instance labels: [H, W] uint32, 0 is background.

    Raises:
        ReadError: unreadable, colour, float, negative, or a binary mask (bool, or nothing but 0 and 255).
    """
    file = Path(path)
    return decode_mask(load_raw(file), str(file))


def load_raw(path: Path) -> Raw:
    """Read the bytes of an image or mask; ReadError when that fails."""
    if path.is_dir():
        from cellfleet.data.images.omezarr import load_tree

        return Raw(load_tree(path))
    return Raw(read_bytes(path))


def decode_image(
    raw: Raw, source: str, *, channels: Sequence[str] | None = None, time: int | None = None, z: int | None = None
) -> Frame:
    """Decode bytes that were read before; arguments and errors as in :func:`read_image`."""
    return to_frame(_decode(raw, source, time, z), channels, source)


def decode_mask(raw: Raw, source: str) -> NDArray[np.uint32]:
    """Decode bytes that were read before; result and errors as in :func:`read_mask`."""
    image = _decode(raw, source, None, None)
    a = image.pixels
    if image.colour:
        raise ReadError(f"{source}: a colour mask", hint=_INSTANCES)
    if a.shape[0] != 1:
        raise ReadError(f"{source}: a mask with {a.shape[0]} channels or pages", hint=_INSTANCES)
    if a.dtype == np.bool_ or a.dtype.kind not in "ui":
        raise ReadError(f"{source}: a mask of {a.dtype}", hint=_INSTANCES)
    return _labels(a[0], source)


def _labels(a: NDArray[Any], source: str) -> NDArray[np.uint32]:
    if not a.size:
        raise ReadError(f"{source}: the mask has no pixels", hint=_INSTANCES)
    low, high = int(a.min()), int(a.max())
    if low < 0:
        raise ReadError(f"{source}: a mask with negative labels (least {low})", hint=_INSTANCES)
    if high > np.iinfo(np.uint32).max:
        raise ReadError(f"{source}: a mask with the label {high}, above 32 bits", hint="renumber the objects from 1")
    if high in (255, 65535) and not ((a > 0) & (a < high)).any():
        raise ReadError(f"{source}: a binary mask (only 0 and {high}) does not separate its objects", hint=_INSTANCES)
    return np.ascontiguousarray(a, dtype=np.uint32)


def _decode(raw: Raw, source: str, time: int | None, z: int | None) -> Decoded:
    data = raw.data
    if not isinstance(data, bytes):
        from cellfleet.data.images.omezarr import decode_zarr

        return decode_zarr(data, source, time=time, z=z)
    if data.startswith(tiff.MAGICS):
        return tiff.decode_tiff(data, source, time=time, z=z)
    if data.startswith(png.MAGIC):
        if time or z:
            raise ReadError(f"{source}: a PNG holds one time and one z plane", hint="leave time and z out")
        return png.decode_png(data, source)
    kind = next((name for magic, name in _OTHERS.items() if data.startswith(magic)), "")
    if kind == "JPEG":
        raise ReadError(
            f"{source}: JPEG is refused, its compression changes outlines and intensities",
            hint="export the image again as TIFF or PNG",
        )
    raise ReadError(
        f"{source}: neither TIFF nor PNG" + (f" but {kind}" if kind else ""),
        hint="export it as TIFF, OME-TIFF, PNG (8 or 16 bit) or OME-Zarr",
    )
