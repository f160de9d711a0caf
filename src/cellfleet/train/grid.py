"""The model's grid: at which pixel size the network sees cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellfleet.config.model import TrainingSection
from cellfleet.data import DataSetVersion, Entry
from cellfleet.errors import TrainError
from cellfleet.runtime.grid import GridSize, size_on_grid

_STEP = 0.05


@dataclass(frozen=True)
class TrainingGrid:
    """Pixel sizes of a training run.

    Attributes:
        target_pixel_size_um: of the model's grid; None: images go in as they are.
        training_pixel_size_um: of all images when they agree, else None.
    """

    target_pixel_size_um: float | None
    training_pixel_size_um: float | None

    def size(self, entry: Entry) -> GridSize:
        """The size of an entry's image on the model's grid, by the rule of the runtime.

        Raises:
            SegmentError: the image would be absurdly large there, so its pixel size is wrong.
        """
        return size_on_grid(entry.height, entry.width, entry.pixel_size_um, self.target_pixel_size_um, entry.id)


def choose_grid(data: DataSetVersion, section: TrainingSection) -> TrainingGrid:
    """Choose the model's grid from the settings and the training split.

    ``auto`` takes the pixel size at which the median cell is ``cell_diameter_px`` wide, rounded to 5 % of the image's own
    pixel size and never finer than it; it keeps images as they are when a pixel size is unknown.

    Raises:
        TrainError: a pixel size is set but images do not state theirs.
    """
    entries = data.split("train") + data.split("validation")
    sizes = [e.pixel_size_um for e in entries]
    known = [s for s in sizes if s is not None]
    one = known[0] if known and len(known) == len(sizes) and max(known) - min(known) < 1e-6 else None
    wanted = section.target_pixel_size_um
    if section.demands_pixel_size and len(known) < len(sizes):
        raise TrainError(
            f"training.demands_pixel_size is set but the pixel size of {len(sizes) - len(known)} image(s) is unknown",
            hint="add pixel_size_um to index.csv, or do not demand the pixel size",
        )
    if wanted == "native" or (wanted == "auto" and len(known) < len(sizes)):
        return TrainingGrid(None, one)
    if len(known) < len(sizes):
        raise TrainError(
            f"training.target_pixel_size_um is {wanted} but the pixel size of {len(sizes) - len(known)} image(s) is unknown",
            hint='add pixel_size_um to index.csv, or set training.target_pixel_size_um = "native"',
        )
    if wanted != "auto":
        assert isinstance(wanted, float | int)
        return TrainingGrid(float(wanted), one)
    finest = min(known)
    factor = max(1.0, _median_diameter_um(data, data.split("train")) / section.cell_diameter_px / finest)
    return TrainingGrid(round(finest * max(1.0, round(factor / _STEP) * _STEP), 6), one)


def _median_diameter_um(data: DataSetVersion, entries: list[Entry]) -> float:
    diameters: list[float] = []
    for entry in entries:
        areas = np.bincount(data.load_mask(entry).ravel())[1:]
        side = entry.pixel_size_um or 1.0
        diameters += [2 * math.sqrt(a / math.pi) * side for a in areas[areas > 0].tolist()]
    return float(np.median(diameters)) if diameters else 0.0
