"""Augmentation that fits microscopy: what changes from plate to plate, not what never happens.

Flips and quarter turns; turns and zoom (another magnification or a squeezed cell); brightness, contrast and gamma (exposure,
staining); a slope of light (uneven illumination, meniscus); blur (focus); noise (short exposures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class ImageAndTargets(Protocol):
    """An image with its targets."""

    @property
    def image(self) -> Floats:
        """[C,H,W]."""
        ...

    @property
    def targets(self) -> Floats:
        """[T,H,W]."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """How strongly crops are changed; 0 changes nothing, 1 is the usual strength."""

    strength: float = 1.0

    def crop(self, source: ImageAndTargets, side: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """A random crop [C,side,side] with its targets [T,side,side]."""
        if self.strength == 0:
            image, targets = _plain_crop(source, side, rng)
        else:
            image, targets = self._warped_crop(source, side, rng)
            image, targets = _flipped(image, targets, rng)
            image = self._light(image, rng)
        return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(targets, np.float32)

    def _warped_crop(self, source: ImageAndTargets, side: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        if rng.random() > 0.5 * self.strength:
            return _plain_crop(source, side, rng)
        angle = float(rng.uniform(-45, 45)) * min(1.0, self.strength)
        zoom = float(np.exp(rng.uniform(-0.25, 0.25) * self.strength))
        height, width = source.image.shape[1:]
        centre = (float(rng.uniform(side / 2, width - side / 2)), float(rng.uniform(side / 2, height - side / 2)))
        matrix = cv2.getRotationMatrix2D(centre, angle, zoom)
        matrix[:, 2] = matrix[:, 2] + np.array([side / 2 - centre[0], side / 2 - centre[1]])

        def warp(plane: Floats, order: int, border: int) -> Floats:
            return cv2.warpAffine(plane, matrix, (side, side), flags=order, borderMode=border).astype(
                np.float32, copy=False
            )

        image = np.stack([warp(p, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101) for p in source.image])
        targets = np.stack([warp(p, cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101) for p in source.targets])
        return image, targets

    def _light(self, image: Floats, rng: np.random.Generator) -> Floats:
        s = self.strength
        out = image
        if rng.random() < 0.3 * s:
            out = np.stack([cv2.GaussianBlur(p, (0, 0), float(rng.uniform(0.3, 1.2))) for p in out])
        if rng.random() < 0.5 * s:
            out = out + _slope(out.shape[1:], rng) * np.float32(0.5 * s)
        if rng.random() < 0.3 * s:
            gamma = float(np.exp(rng.uniform(-0.3, 0.3) * s))
            low, high = float(out.min()), float(out.max())
            if high > low:
                out = ((out - low) / (high - low)) ** np.float32(gamma) * (high - low) + low
        gain = np.exp(rng.uniform(-0.25, 0.25, (out.shape[0], 1, 1)) * s).astype(np.float32)
        offset = (rng.uniform(-0.25, 0.25, (out.shape[0], 1, 1)) * s).astype(np.float32)
        out = out * gain + offset
        if rng.random() < 0.5 * s:
            out = out + rng.standard_normal(out.shape, np.float32) * np.float32(rng.uniform(0, 0.25) * s)
        return out


def _plain_crop(source: ImageAndTargets, side: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    height, width = source.image.shape[1:]
    y, x = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    return source.image[:, y : y + side, x : x + side], source.targets[:, y : y + side, x : x + side]


def _flipped(image: Floats, targets: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, targets = np.rot90(image, turns, (1, 2)), np.rot90(targets, turns, (1, 2))
    return (image[:, :, ::-1], targets[:, :, ::-1]) if flip else (image, targets)


def _slope(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    height, width = shape
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    return (
        np.float32(np.cos(angle)) * x
        + np.float32(np.sin(angle)) * y
        + np.float32(rng.uniform(-1, 1)) * (x * x + y * y - 1)
    )
