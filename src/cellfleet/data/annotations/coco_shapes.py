"""One COCO annotation to pixels: polygons (pycocotools), uncompressed and compressed RLE (here).

RLE runs count down the columns (Fortran order), background first. A compressed run is written in base 48..95: five bits
a character, the sixth says that more follow, and from the third run on it is the difference to the run before the last.
Source: pycocotools, common/maskApi.c (rleToString, rleFrString).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.errors import DataError, ReadError

_MAX_COORDINATE = 1e6


@dataclass(frozen=True, eq=False)
class Patch:
    """The pixels of one object: a mask [h, w] and the place of its corner in the image."""

    y0: int
    x0: int
    mask: NDArray[np.bool_]

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """The window of an image [H, W] that the patch covers, as a view."""
        return image[self.y0 : self.y0 + self.mask.shape[0], self.x0 : self.x0 + self.mask.shape[1]]


def patch_of(annotation: dict[str, Any], shape: tuple[int, int], where: str) -> Patch:
    """Rasterise an annotation into an image of ``shape`` (height, width).

    Raises:
        ReadError: the segmentation makes no sense; the message begins with ``where``.
        DataError: polygons, and pycocotools is not installed.
    """
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons([_polygon(p, where) for p in segmentation], shape)
    if not isinstance(segmentation, dict):
        raise ReadError(f"{where}: no polygon and no RLE", hint="remove the annotation, or draw it again")
    if segmentation.get("size") != [shape[0], shape[1]]:
        raise ReadError(
            f"{where}: the RLE is for {segmentation.get('size')}, the image is {list(shape)}", hint="export it again"
        )
    counts = segmentation.get("counts")
    runs = decode_counts(counts, where) if isinstance(counts, str) else _plain_counts(counts, where)
    return from_runs(runs, shape, where)


def decode_counts(text: str, where: str) -> list[int]:
    """The runs of a compressed RLE string."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ReadError(f"{where}: the RLE string is damaged", hint="export it again")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ReadError(f"{where}: the RLE string ends too early", hint="export it again")
    return runs


def from_runs(runs: list[int], shape: tuple[int, int], where: str) -> Patch:
    """An object from runs of background and object in turn; only the columns that it touches are unfolded."""
    height, width = shape
    if any(r < 0 for r in runs) or sum(runs) != height * width:
        raise ReadError(f"{where}: the RLE does not fill the image", hint="export it again")
    ends = np.cumsum(np.asarray(runs, np.int64))
    starts = ends - np.asarray(runs, np.int64)
    starts, ends = starts[1::2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not starts.size:
        return Patch(0, 0, np.zeros((1, 1), np.bool_))
    x0, x1 = int(starts[0]) // height, (int(ends[-1]) - 1) // height + 1
    steps = np.zeros((x1 - x0) * height + 1, np.int8)
    # Two runs may touch (an empty run between them): then +1 and -1 meet at one place, so add instead of set.
    np.add.at(steps, starts - x0 * height, 1)
    np.add.at(steps, ends - x0 * height, -1)
    columns = np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(x1 - x0, height)
    rows = np.flatnonzero(columns.any(axis=0))
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    return Patch(y0, x0, np.ascontiguousarray(columns[:, y0:y1].T))


def _plain_counts(counts: Any, where: str) -> list[int]:
    if not isinstance(counts, list) or not all(isinstance(c, int) for c in counts):
        raise ReadError(f"{where}: the RLE has no counts", hint="export it again")
    return counts


def _polygon(points: Any, where: str) -> list[float]:
    fine = isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0
    if not fine or not all(isinstance(p, int | float) and math.isfinite(p) for p in points):
        raise ReadError(f"{where}: a polygon needs at least three points (x, y)", hint="draw it again, or remove it")
    if max(map(abs, points)) > _MAX_COORDINATE:
        raise ReadError(f"{where}: a polygon far outside the image", hint="draw it again, or remove it")
    return [float(p) for p in points]


def _from_polygons(polygons: list[list[float]], shape: tuple[int, int]) -> Patch:
    """Rasterise within the polygons' bounding box: the same pixels as in the whole image, and much faster."""
    try:
        from pycocotools import mask as coco_mask
    except ImportError as e:
        raise DataError(
            "COCO polygons need pycocotools, which is not installed", hint="pip install 'cellfleet[data]'"
        ) from e
    xs = [x for p in polygons for x in p[0::2]]
    ys = [y for p in polygons for y in p[1::2]]
    x0, x1 = _span(min(xs), max(xs), shape[1])
    y0, y1 = _span(min(ys), max(ys), shape[0])
    moved = [[v - (y0 if i % 2 else x0) for i, v in enumerate(p)] for p in polygons]
    rle = coco_mask.merge(coco_mask.frPyObjects(moved, y1 - y0, x1 - x0))
    counts: bytes = rle["counts"]
    # Not pycocotools' decode: it warns under NumPy 2, and this way all kinds end in the same code.
    part = from_runs(decode_counts(counts.decode("ascii"), "polygon"), (y1 - y0, x1 - x0), "polygon")
    return Patch(y0 + part.y0, x0 + part.x0, part.mask)


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    start = min(max(math.floor(low) - 1, 0), size - 1)
    return start, max(min(math.ceil(high) + 2, size), start + 1)
