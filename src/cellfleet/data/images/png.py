"""PNG, 8 and 16 bit. The container is checked here, so that OpenCV's decoder only sees whole and known files."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.data.files import check_size, damaged
from cellfleet.data.images.frame import Decoded
from cellfleet.errors import ReadError

MAGIC = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}


def decode_png(data: bytes, source: str) -> Decoded:
    """Decode a PNG: grey gives one channel, colour three; alpha is dropped.

    Gamma, colour profiles and resolution are ignored: pixels are the stored values, and the pixel size is unknown.

    Raises:
        ReadError: truncated, damaged, palette colours, or fewer than 8 bits.
    """
    clean, kind, bits = _checked(data, source)
    if kind == _PALETTE:
        raise ReadError(f"{source}: a PNG with a colour palette", hint="save it as grey values, 8 or 16 bit")
    if bits < 8:
        raise ReadError(f"{source}: a PNG of {bits} bit(s) per pixel", hint="save it as grey values, 8 or 16 bit")
    return _decoded(_pixels(clean, source), kind)


def _decoded(a: NDArray[Any], kind: int) -> Decoded:
    if a.ndim == 2:
        return Decoded(a[None])
    if kind == _GREY_ALPHA:
        return Decoded(a[None, :, :, 0])
    return Decoded(np.ascontiguousarray(a[:, :, 2::-1].transpose(2, 0, 1)), colour=True)


def _pixels(clean: bytes, source: str) -> NDArray[Any]:
    try:
        a = cv2.imdecode(np.frombuffer(clean, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        raise damaged(source, str(e.err or e)) from e
    if a is None:
        raise damaged(source, "the PNG cannot be decoded")
    return a


def _checked(data: bytes, source: str) -> tuple[bytes, int, int]:
    """Walk the chunks, check their CRCs and the length of the pixel stream, keep only what decides pixels."""
    kept, stream, at, end = [MAGIC], bytearray(), len(MAGIC), False
    header: tuple[int, ...] | None = None
    while not end:
        if at + 12 > len(data):
            raise damaged(source, "the PNG ends too early")
        (length,) = struct.unpack_from(">I", data, at)
        chunk = data[at : at + 12 + length]
        name, body = chunk[4:8], chunk[8:-4]
        if len(chunk) < 12 + length:
            raise damaged(source, "the PNG ends too early")
        if zlib.crc32(name + body) != struct.unpack(">I", chunk[-4:])[0]:
            raise damaged(source, f"wrong checksum in the PNG chunk {name.decode('latin-1')!r}")
        if header is None:
            header = _header(name, body, source)
        if name in (b"IHDR", b"IDAT", b"IEND"):
            kept.append(chunk)
        stream += body if name == b"IDAT" else b""
        end, at = name == b"IEND", at + len(chunk)
    assert header is not None
    _check_stream(bytes(stream), header, source)
    return b"".join(kept), header[3], header[2]


def _header(name: bytes, body: bytes, source: str) -> tuple[int, ...]:
    if name != b"IHDR" or len(body) != 13:
        raise damaged(source, "the PNG has no header")
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", body)
    if kind not in _SAMPLES or bits not in (1, 2, 4, 8, 16) or width == 0 or height == 0:
        raise damaged(source, "the PNG header makes no sense")
    check_size(width * height * _SAMPLES[kind], source)
    return width, height, bits, kind, interlaced


def _check_stream(stream: bytes, header: tuple[int, ...], source: str) -> None:
    """The pixel stream must hold every row (counted, not kept), so that no decoder fills in what is missing."""
    width, height, bits, kind, interlaced = header
    least = height * ((width * bits * _SAMPLES[kind] + 7) // 8 + (0 if interlaced else 1))
    unpack, size, rest = zlib.decompressobj(), 0, stream
    try:
        while rest and not unpack.eof and size <= least * 2 + 4096:
            size += len(unpack.decompress(rest, 1 << 20))
            rest = unpack.unconsumed_tail
        size += len(unpack.flush()) if not rest and not unpack.eof else 0
    except zlib.error as e:
        raise damaged(source, "the compressed pixels are broken") from e
    if size < least:
        raise damaged(source, "rows are missing at the end")
