"""Numbers of a segmentation that show whether it looks as usual: what drift detectors read, with every frame.

=====================  =========  ======================================================================
name                   unit       meaning
=====================  =========  ======================================================================
objects                1          their number
area_px_p10, p50, p90  pixels     quantiles of the objects' areas
area_um2_p50           um2        median area; None when the pixel size is unknown
eccentricity_p50       0-1        median
probability_mean       0-1        mean of the objects' mean foreground probability
probability_p10        0-1        its 10 % quantile: how sure the least sure objects are
foreground_percent     percent    pixels whose foreground probability is at least 1/2
uncertain_percent      percent    pixels whose foreground probability lies within 0.25-0.75
entropy_bits           bits       mean binary entropy of the foreground probability; 0 sure, 1 guessing
=====================  =========  ======================================================================

Quantities of objects are None when there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 256
_BAND_ROWS = 512


def output_features(
    table: Mapping[str, NDArray[Any]], foreground: NDArray[np.uint16], pixel_size_um: float | None = None
) -> dict[str, float | None]:
    """Measure a segmentation.

    Args:
        table: columns ``area_px``, ``eccentricity``, ``mean_probability``, one value per object.
        foreground: uint16 [H,W], probability times 65535.
        pixel_size_um: side of a pixel; None when unknown.

    Returns:
        Feature name -> value; None where no object gives one.
    """
    area = np.asarray(table["area_px"], np.float64)
    sure = np.asarray(table["mean_probability"], np.float64)
    p10, p50, p90 = _quantiles(area, (10, 50, 90))
    return {
        "objects": float(area.size),
        "area_px_p10": p10,
        "area_px_p50": p50,
        "area_px_p90": p90,
        "area_um2_p50": None if p50 is None or pixel_size_um is None else p50 * pixel_size_um**2,
        "eccentricity_p50": _quantiles(np.asarray(table["eccentricity"], np.float64), (50,))[0],
        "probability_mean": float(sure.mean()) if sure.size else None,
        "probability_p10": _quantiles(sure, (10,))[0],
        **_of_foreground(foreground),
    }


def _quantiles(values: NDArray[np.float64], percent: tuple[float, ...]) -> list[float | None]:
    values = values[np.isfinite(values)]
    if not values.size:
        return [None] * len(percent)
    return [float(v) for v in np.percentile(values, percent)]


def _of_foreground(foreground: NDArray[np.uint16]) -> dict[str, float | None]:
    """From a histogram of 256 bins: the numbers cost one pass over the map, whatever their formula."""
    counts = np.zeros(_BINS, np.int64)
    for y in range(0, foreground.shape[0], _BAND_ROWS):
        counts += np.bincount((foreground[y : y + _BAND_ROWS] >> 8).ravel(), minlength=_BINS)
    p = (np.arange(_BINS) + 0.5) / _BINS
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    total = max(1, int(counts.sum()))
    return {
        "foreground_percent": 100.0 * int(counts[p >= 0.5].sum()) / total,
        "uncertain_percent": 100.0 * int(counts[(p >= 0.25) & (p <= 0.75)].sum()) / total,
        "entropy_bits": float(counts @ entropy) / total,
    }
