"""Golden frames: raw frames with truth and expected output, by which a device tests itself before it uses a model.

In the bundle every golden frame is four or more NumPy files (format 1.0 of ``numpy.lib.format``) below ``golden/<name>/``:
``image.npy`` uint8 or uint16 [C,H,W], ``truth.npy`` and ``expected-<engine>-<precision>.npy`` uint16 or uint32 [H,W].
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle.refusals import BadFrame
from cellfleet.bundle.spec import Record

MAX_VALUES = 64_000_000
_DTYPES = ("|u1", "<u2", "<u4", "<f4")
_HEADER = re.compile(rb"^\x93NUMPY\x01\x00")


class GoldenRecord(Record):
    """What bundle.json says of a golden frame.

    Attributes:
        name: folder below ``golden/``.
        channels: names of the channels.
        pixel_size_um: of the frame.
        stratum: the kind of cells.
        expected: variant -> file of its expected labels.
    """

    name: str
    channels: tuple[str, ...]
    pixel_size_um: float | None
    stratum: str
    expected: dict[str, str]


@dataclass(frozen=True, eq=False)
class GoldenFrame:
    """A golden frame.

    Attributes:
        name: letters, digits, ``-`` and ``_``.
        pixels: uint8 or uint16 [C,H,W].
        channels: names of the channels.
        pixel_size_um: None when unknown.
        stratum: the kind of cells.
        truth: uint16 or uint32 [H,W], true objects.
        expected: variant name -> its labels on the machine that built the bundle.
    """

    name: str
    pixels: NDArray[Any]
    channels: tuple[str, ...]
    pixel_size_um: float | None
    stratum: str
    truth: NDArray[Any]
    expected: Mapping[str, NDArray[Any]]

    def files(self) -> dict[str, bytes]:
        """The files below ``golden/``."""
        base = f"golden/{self.name}"
        out = {f"{base}/image.npy": npy_bytes(self.pixels), f"{base}/truth.npy": npy_bytes(self.truth)}
        for variant, labels in self.expected.items():
            out[expected_file(self.name, variant)] = npy_bytes(labels)
        return out

    def record(self) -> GoldenRecord:
        """What bundle.json says of it."""
        expected = {v: expected_file(self.name, v) for v in sorted(self.expected)}
        return GoldenRecord(
            name=self.name,
            channels=self.channels,
            pixel_size_um=self.pixel_size_um,
            stratum=self.stratum,
            expected=expected,
        )


def expected_file(name: str, variant: str) -> str:
    """Where the expected labels of a variant lie."""
    return f"golden/{name}/expected-{variant.replace('/', '-')}.npy"


def npy_bytes(array: NDArray[Any]) -> bytes:
    """An array in NumPy's file format, little-endian, C order: the same bytes for the same values."""
    out = io.BytesIO()
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    np.lib.format.write_array(out, little, version=(1, 0), allow_pickle=False)
    return out.getvalue()


def read_npy(data: bytes, name: str, *, dtypes: tuple[str, ...] = _DTYPES, ndim: int | None = None) -> NDArray[Any]:
    """Read what ``npy_bytes`` wrote; the header is checked before memory is taken.

    Raises:
        BadFrame: anything else.
    """
    if not _HEADER.match(data) or len(data) < 10:
        raise BadFrame(f"{name} is not a NumPy file of version 1.0")
    length = int.from_bytes(data[8:10], "little")
    try:
        header = ast.literal_eval(data[10 : 10 + length].decode("latin1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
        values = 1
        for side in shape:
            if type(side) is not int or side < 1:
                raise BadFrame(f"{name} has the shape {shape}")
            values *= side
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as e:
        raise BadFrame(f"{name} has a damaged header") from e
    if (
        descr not in dtypes
        or fortran
        or values > MAX_VALUES
        or not isinstance(shape, tuple)
        or (ndim is not None and len(shape) != ndim)
    ):
        raise BadFrame(f"{name} is {descr} {list(shape)}, which a bundle may not hold there")
    body = data[10 + length :]
    if len(body) != values * np.dtype(descr).itemsize:
        raise BadFrame(f"{name} has {len(body)} bytes of values, its header promises {values}")
    return np.frombuffer(body, dtype=descr).reshape(shape).copy()
