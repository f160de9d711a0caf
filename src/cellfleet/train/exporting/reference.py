"""Statistics of the training frames that go into the bundle, so that instruments notice when their frames drift away."""

from __future__ import annotations

from typing import Any

import numpy as np

from cellfleet.data import DataSetVersion
from cellfleet.runtime.objects import frame_moments

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def reference_statistics(data: DataSetVersion) -> dict[str, Any]:
    """Quantiles over the training frames: mean and deviation per channel, object count, area and confluence.

    Returns:
        Plain JSON data, the same for the same data set version.
    """
    columns: dict[str, list[float]] = {}
    areas: list[float] = []
    for entry in data.split("train"):
        frame = data.load_frame(entry)
        mean, std = frame_moments(frame.pixels)
        for channel, m, s in zip(frame.channels, mean, std, strict=True):
            columns.setdefault(f"mean_{channel}", []).append(float(m))
            columns.setdefault(f"std_{channel}", []).append(float(s))
        labels = data.load_mask(entry)
        sizes = np.bincount(labels.ravel())[1:]
        sizes = sizes[sizes > 0]
        columns.setdefault("count", []).append(float(sizes.size))
        columns.setdefault("confluence_percent", []).append(100.0 * float(sizes.sum()) / labels.size)
        side = entry.pixel_size_um
        areas += [float(a) * side**2 if side else float(a) for a in sizes]
        columns["object_area_um2" if side else "object_area_px"] = areas
    return {
        "quantiles": list(QUANTILES),
        "columns": {name: _quantiles(values) for name, values in sorted(columns.items()) if values},
    }


def _quantiles(values: list[float]) -> list[float]:
    return [float(f"{v:.6g}") for v in np.quantile(np.asarray(values), QUANTILES)]
