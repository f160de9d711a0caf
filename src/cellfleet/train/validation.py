"""Validation during training, and the choice of the object parameters afterwards, by the runtime's own post-processing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellfleet.bundle.spec import ObjectParams
from cellfleet.data import DataSetVersion, Entry
from cellfleet.metrics import Numbers, match, numbers_of
from cellfleet.ports import ProgressFn, silent
from cellfleet.runtime.objects import objects_from_maps, quantise, resample_pixels
from cellfleet.train.networks import HeadedUNet, probabilities, stride_of
from cellfleet.train.samples import Sample

DEFAULT_PARAMS = ObjectParams(
    foreground_threshold=0.5, seed_threshold=0.5, smooth_passes=2, min_seed_area_px=3, min_area_px=20
)
SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7)
FOREGROUNDS = (0.3, 0.4, 0.5, 0.6)
SMOOTH = (1, 4)
AREAS = (10, 30, 60)


@dataclass(frozen=True, eq=False)
class QuantisedMaps:
    """The two maps of a frame, uint16 [H,W], and the truth on the same grid."""

    foreground: NDArray[np.uint16]
    distance: NDArray[np.uint16]
    truth: NDArray[np.uint32]
    scale: float

    def segment(self, params: ObjectParams) -> NDArray[np.uint32]:
        """Objects; the maps stay as they are."""
        return objects_from_maps(self.foreground, self.distance.copy(), params, self.scale)


def predict(network: HeadedUNet, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Maps by kind, float32 [H,W], of one normalised image [C,H,W] of any size."""
    stride = stride_of(network.net.channels)
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (0, -height % stride), (0, -width % stride)), mode="edge")
    with torch.inference_mode():
        x = torch.from_numpy(padded)[None].contiguous(memory_format=torch.channels_last)
        out: tuple[Tensor, ...] = probabilities(network.heads, network(x))
    return {h.kind: y[0, 0, :height, :width].contiguous().numpy() for h, y in zip(network.heads, out, strict=True)}


def maps_of(
    network: HeadedUNet,
    samples: list[Sample],
    data: DataSetVersion,
    entries: list[Entry],
    progress: ProgressFn = silent,
) -> list[QuantisedMaps]:
    """The maps of validation frames on the frames' own grids, as the runtime makes them."""
    network.eval()
    out = []
    for done, (sample, entry) in enumerate(zip(samples, entries, strict=True), 1):
        maps = predict(network, sample.image)
        size = (entry.height, entry.width)
        f, d = (resample_pixels(quantise(maps[k]), *size) for k in ("foreground", "distance"))
        out.append(QuantisedMaps(f, d, data.load_mask(entry), sample.scale))
        progress(done, len(entries), entry.id)
    return out


def validate(network: HeadedUNet, samples: list[Sample]) -> Numbers:
    """The quality on the model's grid with the default parameters; good for comparing epochs."""
    network.eval()
    scores = []
    for sample in samples:
        maps = predict(network, sample.image)
        found = objects_from_maps(quantise(maps["foreground"]), quantise(maps["distance"]), DEFAULT_PARAMS)
        scores.append(match(sample.labels, found))
    return numbers_of(scores)


def numbers_with(maps: list[QuantisedMaps], params: ObjectParams) -> Numbers:
    """The quality on some frames with given parameters."""
    return numbers_of([match(m.truth, m.segment(params)) for m in maps])


def score_of(numbers: Numbers) -> float:
    """What training maximises: the mean of AP@0.5 and mean AP, which is steadier than AP@0.5 alone."""
    return (numbers.ap50 + numbers.map) / 2


def choose_params(maps: list[QuantisedMaps], progress: ProgressFn = silent) -> tuple[ObjectParams, Numbers]:
    """Choose the object parameters with the best score.

    First seed threshold, foreground threshold and smoothing together, then the least areas. Of equal scores the first in
    the order of the lists above counts, so that the choice is the same everywhere.
    """
    best, numbers = DEFAULT_PARAMS, numbers_with(maps, DEFAULT_PARAMS)
    steps: list[dict[str, float]] = [
        {"seed_threshold": s, "foreground_threshold": f, "smooth_passes": p}
        for s, f, p in itertools.product(SEEDS, FOREGROUNDS, SMOOTH)
    ]
    areas: list[dict[str, float]] = [
        {"min_area_px": a, "min_seed_area_px": s} for a, s in itertools.product(AREAS, (1, 3, 8))
    ]
    done = 0
    for group in (steps, areas):
        start = best
        for change in group:
            params = ObjectParams(**{**start.model_dump(), **change})
            found = numbers_with(maps, params)
            if score_of(found) > score_of(numbers):
                best, numbers = params, found
            done += 1
            progress(done, len(steps) + len(areas), f"AP50 {numbers.ap50:.3f}")
    return best, numbers
