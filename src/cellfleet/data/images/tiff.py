"""TIFF, BigTIFF, OME-TIFF and ImageJ TIFF through tifffile, from bytes in memory."""

from __future__ import annotations

import io
import logging
import math
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellfleet.data.files import check_size, collected_log, damaged
from cellfleet.data.images.frame import Decoded
from cellfleet.data.images.ome_xml import OmeImage, parse_ome_xml
from cellfleet.data.images.units import agreed_pixel_size, to_um
from cellfleet.errors import ReadError

MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_MAX_TAG_PIXEL_UM = 50.0
_LOSSY = (6, 7, 34892)
"""TIFF compression tags of JPEG (old and new) and lossy DNG."""

_CODECS_HINT = "install the decoders: pip install 'cellfleet[formats]'"


def decode_tiff(data: bytes, source: str, *, time: int | None = None, z: int | None = None) -> Decoded:
    """Decode one image: axes Y and X, and channels (C, or S for the samples of a pixel).

    A file with several times or z planes needs ``time`` or ``z``; other axes of more than one are refused, and pages
    whose axis the file does not name come back with ``pages`` set (see :func:`cellfleet.data.images.frame.to_frame`).
    The pixel size comes from OME-XML, else from ImageJ's unit and the resolution tags; a resolution in inches or
    centimetres that would mean pixels above 50 um is a printer's and is ignored.

    Raises:
        ReadError: truncated, damaged, a missing decoder, several images in one file, unknown axes.
    """
    with collected_log("tifffile") as log:
        try:
            # closing the stream lets go of the data; tifffile's own objects refer to each other and stay for a while
            with io.BytesIO(data) as stream, tifffile.TiffFile(stream, name=source, _multifile=False) as tif:
                image = _decode(tif, len(data), source, {"T": time, "Z": z})
        except ReadError:
            raise
        except MemoryError as e:
            raise ReadError(f"{source}: not enough memory to read it", hint="cut the image into parts") from e
        except Exception as e:  # tifffile and its codecs raise whatever they meet in a damaged file
            raise _translate(e, source) from e
    errors = [r.getMessage() for r in log if r.levelno >= logging.ERROR]
    if errors:
        raise damaged(source, _short(errors[0]))
    return image


def _decode(tif: Any, size: int, source: str, planes: dict[str, int | None]) -> Decoded:
    series = _only_series(tif, source)
    check_size(math.prod(series.shape), source)
    pages = list(series.pages)
    if not pages or any(p is None for p in pages):
        raise damaged(source, "planes are missing, or live in other files")
    _check_page(series.keyframe, source)
    for page in pages:
        _check_extent(page, size, source)
    pixels = series.asarray()
    if pixels.dtype.byteorder not in ("=", "|"):
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    ome = parse_ome_xml(tif.ome_metadata, source) if tif.is_ome else OmeImage()
    pixels, axes = _pick_planes(pixels, series.axes, planes, source)
    pixels, colour, unnamed = _channels_first(pixels, axes, int(series.keyframe.photometric) == 2, source)
    size_um = ome.pixel_size_um if tif.is_ome else _tag_pixel_size(tif, source)
    names = ome.channels if len(ome.channels) == pixels.shape[0] else ()
    return Decoded(pixels, names, colour, unnamed, size_um, ome.metadata)


def _only_series(tif: Any, source: str) -> Any:
    if not tif.series:
        raise damaged(source, "the TIFF holds no image")
    if len(tif.series) > 1:
        shapes = ", ".join("x".join(map(str, s.shape)) for s in tif.series[:4])
        raise ReadError(
            f"{source}: {len(tif.series)} images in one file ({shapes})", hint="save each image in a file of its own"
        )
    return tif.series[0]


def _check_page(page: Any, source: str) -> None:
    if int(page.compression) in _LOSSY:
        raise ReadError(
            f"{source}: a TIFF with JPEG compression, which changes outlines and intensities",
            hint="save it without compression, or with LZW or deflate",
        )
    if int(page.photometric) == 3:
        raise ReadError(f"{source}: a TIFF with a colour palette", hint="save it as grey values, 8 or 16 bit")
    if int(page.photometric) in (5, 6, 8):
        raise ReadError(
            f"{source}: colours are stored as {page.photometric.name}", hint="save it as RGB or grey values"
        )


def _check_extent(page: Any, size: int, source: str) -> None:
    """Every strip or tile must lie inside the file; tifffile itself would fill what is missing with zeros."""
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or min(page.databytecounts) <= 0 or min(page.dataoffsets) <= 0:
        raise damaged(source, "pixel data are missing")
    if max(ends) > size:
        raise damaged(source, f"pixel data should reach byte {max(ends):,}, the file has {size:,}")


def _pick_planes(
    pixels: NDArray[Any], axes: str, planes: dict[str, int | None], source: str
) -> tuple[NDArray[Any], str]:
    for axis, name in (("T", "time"), ("Z", "z")):
        wanted = planes[axis]
        at = axes.find(axis)
        length = pixels.shape[at] if at >= 0 else 1
        if wanted is not None and not 0 <= wanted < length:
            raise ReadError(f"{source}: there is no {name} {wanted}; the file has {length}", hint="count from 0")
        if length > 1 and wanted is None:
            found = ", ".join(f"{a}={n}" for a, n in zip(axes, pixels.shape, strict=True))
            raise ReadError(
                f"{source}: several {'times' if axis == 'T' else 'z planes'} in one image (axes {found})",
                hint=f"save one file per {'time' if axis == 'T' else 'z plane'}, or project them",
            )
        if at >= 0:
            # An index, not take(): that would copy, and a frame may be most of the memory there is.
            pixels, axes = pixels[(slice(None),) * at + (wanted or 0,)], axes.replace(axis, "")
    return pixels, axes


def _channels_first(pixels: NDArray[Any], axes: str, rgb: bool, source: str) -> tuple[NDArray[Any], bool, bool]:
    """[C, H, W] from Y, X and at most one of C, S and an unnamed axis; (pixels, colour, pages)."""
    keep = [i for i, (a, n) in enumerate(zip(axes, pixels.shape, strict=True)) if n > 1 or a in "YX"]
    found = ", ".join(f"{a}={n}" for a, n in zip(axes, pixels.shape, strict=True))
    pixels, axes = pixels.reshape([pixels.shape[i] for i in keep]), "".join(axes[i] for i in keep)
    rest = axes.replace("Y", "").replace("X", "")
    if "Y" not in axes or "X" not in axes or len(rest) > 1 or rest not in ("", "C", "S", "I", "Q"):
        raise ReadError(
            f"{source}: cannot distinguish channels from other axes (axes {found})",
            hint="save one image per file, with the axes Y and X and, for several channels, C",
        )
    order = [axes.index(a) for a in (*rest, "Y", "X")]
    pixels = pixels.transpose(order) if rest else pixels.transpose(order)[None]
    colour = rest == "S" and rgb and pixels.shape[0] in (3, 4)
    return (pixels[:3] if colour else pixels), colour, rest in ("I", "Q") and bool(rest)


def _tag_pixel_size(tif: Any, source: str) -> float | None:
    tags = tif.series[0].keyframe.tags
    try:
        per_unit = [tags[n].value[0] / tags[n].value[1] for n in ("XResolution", "YResolution")]
    except (KeyError, ZeroDivisionError, TypeError, IndexError):
        return None
    imagej = (tif.imagej_metadata or {}).get("unit", "") if tif.is_imagej else ""
    unit = {2: "inch", 3: "cm"}.get(int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2)
    scale = to_um(str(imagej)) if imagej else to_um(unit or "")
    if scale is None or any(not math.isfinite(p) or p <= 0 for p in per_unit):
        return None
    sizes = [scale / p for p in per_unit]
    if not imagej and max(sizes) > _MAX_TAG_PIXEL_UM:
        return None
    return agreed_pixel_size(sizes[0], sizes[1], source)


def _translate(e: Exception, source: str) -> ReadError:
    text = _short(str(e) or type(e).__name__)
    if "imagecodecs" in text:
        return ReadError(f"{source}: this TIFF compression needs a decoder that is not installed", hint=_CODECS_HINT)
    return damaged(source, text)


def _short(text: str) -> str:
    return np.str_(text).splitlines()[0][:160] if text else ""
