"""Looking at the objects of a mask: how many, in how many pieces, how small."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.errors import DataError

_DIRECT = 1 << 22
"""Labels up to this are counted in a table; larger ones are renumbered first."""


@dataclass(frozen=True)
class ObjectCheck:
    """What a mask holds.

    Attributes:
        count: number of objects.
        pieces: labels of objects that are in several pieces (8-connected).
        small: labels of objects smaller than the least area.
        fragments: labels of objects that have a piece smaller than the least area beside a larger one.
    """

    count: int
    pieces: tuple[int, ...]
    small: tuple[int, ...]
    fragments: tuple[int, ...]


def check_objects(labels: NDArray[np.uint32], min_area_px: int) -> ObjectCheck:
    """Examine a label image [H, W]; each object is looked at in its own bounding box only.

    Raises:
        DataError: scipy is not installed (extra ``data``).
    """
    try:
        from scipy import ndimage
    except ImportError as e:
        raise DataError(
            "checking masks needs scipy, which is not installed", hint="pip install 'cellfleet[data]'"
        ) from e
    compact, names = _compact(labels)
    areas = np.bincount(compact.ravel(), minlength=len(names))
    pieces: list[int] = []
    fragments: list[int] = []
    for number, box in enumerate(ndimage.find_objects(compact), start=1):
        mask = (compact[box] == number).view(np.uint8)
        if int(areas[number]) == mask.size:
            continue
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count > 2:
            pieces.append(names[number])
            least = int(stats[1:, cv2.CC_STAT_AREA].min())
            if least < min_area_px <= int(areas[number]):
                fragments.append(names[number])
    small = [names[n] for n in range(1, len(names)) if int(areas[n]) < min_area_px]
    return ObjectCheck(len(names) - 1, tuple(pieces), tuple(small), tuple(fragments))


def _compact(labels: NDArray[np.uint32]) -> tuple[NDArray[np.int32], list[int]]:
    """Labels renumbered 0..n without gaps, and the original label of each number."""
    if int(labels.max()) < _DIRECT:
        used = np.flatnonzero(np.bincount(labels.ravel()))
        used = used if used[0] == 0 else np.concatenate([[0], used])
        table = np.zeros(int(used[-1]) + 1, np.int32)
        table[used] = np.arange(len(used))
        return table[labels], [int(u) for u in used]
    values, inverse = np.unique(labels, return_inverse=True)
    shift = 0 if values[0] == 0 else 1
    compact = inverse.reshape(labels.shape).astype(np.int32) + shift
    return compact, [0] * shift + [int(v) for v in values]
