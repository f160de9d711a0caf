"""Training samples: every image once on the model's grid, then crops of it, augmented.

What is random in a sample depends on (seed, epoch, image, crop) alone, so training can stop and go on anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle.spec import Head
from cellfleet.data import DataSetVersion, Entry
from cellfleet.errors import TrainError
from cellfleet.ports import ProgressFn, silent
from cellfleet.runtime.objects import frame_moments, resample_labels, resample_pixels
from cellfleet.train.augment import Augmentation
from cellfleet.train.grid import TrainingGrid
from cellfleet.train.targets import targets_of

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image on the model's grid.

    Attributes:
        image: float32 [C,H,W], normalised by the moments of the whole frame, as the exported graph does it.
        targets: float32 [T,H,W].
        labels: uint32 [H,W], the true objects.
        scale: pixels of the image file per pixel of the model's grid, along one side.
    """

    image: Floats
    targets: Floats
    labels: NDArray[np.uint32]
    scale: float = 1.0


def prepare(
    data: DataSetVersion, entry: Entry, channels: tuple[str, ...], grid: TrainingGrid, heads: tuple[Head, ...]
) -> Sample:
    """Read an entry through the same functions as the runtime and put it on the model's grid."""
    frame = data.load_frame(entry)
    if frame.channels != channels:
        raise TrainError(
            f"{entry.id} has the channels {', '.join(frame.channels)}, other images have {', '.join(channels)}",
            hint="train on images with the same channels",
        )
    size = grid.size(entry)
    pixels = resample_pixels(frame.pixels, size.height, size.width)
    mean, std = frame_moments(pixels)
    image = (pixels.astype(np.float32) - mean[:, None, None]) / std[:, None, None]
    labels = resample_labels(data.load_mask(entry), size.height, size.width)
    return Sample(image, targets_of(labels, heads), labels, size.scale)


class Crops:
    """Crops of prepared images.

    Args:
        samples: the training images.
        crop_px: side of a crop; smaller images are continued by mirroring, targets alike.
        crops_per_image: crops taken from each image in an epoch.
        seed: of everything random here.
        augmentation: what is done to crops.
    """

    def __init__(
        self, samples: list[Sample], crop_px: int, crops_per_image: int, seed: int, augmentation: Augmentation
    ) -> None:
        self.samples = [_padded(s, crop_px) for s in samples]
        self.crop_px = crop_px
        self.crops_per_image = crops_per_image
        self.seed = seed
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.samples) * self.crops_per_image

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The order of the crops in an epoch."""
        return np.random.default_rng((self.seed, 1, epoch)).permutation(len(self))

    def crop(self, epoch: int, index: int) -> tuple[Floats, Floats]:
        """Image [C,P,P] and targets [T,P,P] of one crop."""
        rng = np.random.default_rng((self.seed, 2, epoch, index))
        return self.augmentation.crop(self.samples[index % len(self.samples)], self.crop_px, rng)


def load_samples(
    data: DataSetVersion,
    entries: list[Entry],
    channels: tuple[str, ...],
    grid: TrainingGrid,
    heads: tuple[Head, ...],
    progress: ProgressFn = silent,
) -> list[Sample]:
    """Prepare entries, with progress."""
    out = []
    for done, entry in enumerate(entries, 1):
        out.append(prepare(data, entry, channels, grid, heads))
        progress(done, len(entries), entry.id)
    return out


def _padded(sample: Sample, crop_px: int) -> Sample:
    height, width = sample.image.shape[1:]
    by = ((0, 0), (0, max(0, crop_px - height)), (0, max(0, crop_px - width)))
    if by[1][1] == by[2][1] == 0:
        return sample
    image, targets = (np.pad(a, by, mode="symmetric") for a in (sample.image, sample.targets))
    return Sample(image, targets, np.pad(sample.labels, by[1:], mode="symmetric"), sample.scale)
