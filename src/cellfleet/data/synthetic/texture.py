"""Mottling and granules of cells: tiles of texture that move, turn and round up with their cell."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.data.synthetic.population import stream

Floats = NDArray[np.float32]

TILE = 256
"""Side of the texture tile in pixels; it repeats without a seam."""


def tile(seed: int, pixel_size_um: float) -> Floats:
    """Texture of cytoplasm, float32 [TILE, TILE]: mean about 0, dark granules up to about 2, bright vacuoles about -2."""
    random = stream(seed, 2)
    mottled = smooth_noise(random, TILE, 1.6 / pixel_size_um)
    fine = smooth_noise(random, TILE, 0.7 / pixel_size_um)
    out = 0.35 * mottled + 0.25 * fine
    side_um = TILE * pixel_size_um
    spots = np.zeros((TILE, TILE), np.float32)
    for per_um2, radius_um, strength in ((0.02, 0.55, 1.6), (0.004, 0.9, 2.2), (0.0015, 0.9, -2.6)):
        count = min(int(per_um2 * side_um**2), 4000)
        places = random.integers(0, TILE, (count, 2))
        points = np.zeros((TILE, TILE), np.float32)
        points[places[:, 0], places[:, 1]] = 1
        sigma = radius_um / pixel_size_um
        spots += strength * wrapped_blur(points, sigma) * np.float32(2 * np.pi * max(sigma, 0.4) ** 2)
    return out + np.clip(spots, -2.5, 2.5)


def smooth_noise(random: np.random.Generator, side: int, sigma_px: float) -> Floats:
    """Noise of mean 0 and deviation 1 that changes over ``sigma_px`` pixels and repeats; float32 [side, side]."""
    noise = wrapped_blur(random.standard_normal((side, side), dtype=np.float32), sigma_px)
    noise -= noise.mean()
    return noise / max(float(noise.std()), 1e-6)


def wrapped_blur(image: Floats, sigma_px: float) -> Floats:
    """Gaussian blur of an image that repeats at its borders."""
    pad = min(int(4 * sigma_px) + 2, image.shape[0])
    wide = np.pad(image, pad, mode="wrap")
    return np.asarray(cv2.GaussianBlur(wide, (0, 0), max(sigma_px, 0.4)), np.float32)[pad:-pad, pad:-pad]


def sample(tile_: Floats, ys: Floats, xs: Floats) -> Floats:
    """Texture at points [h, w] given in pixels of the tile, which repeats."""
    return np.asarray(
        cv2.remap(tile_, np.mod(xs, TILE), np.mod(ys, TILE), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    )
