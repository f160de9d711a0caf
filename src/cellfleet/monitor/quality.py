"""Numbers of an image that show whether it is fit to be segmented. Each is one pass or less over the pixels.

==================  ===================  =====================================================================
name                unit                 meaning
==================  ===================  =====================================================================
mean, std           grey values          of all pixels
p01, p50, p99       grey values          percentiles, of a regular sample of a large frame
saturated_high      part, 0-1            pixels at the greatest value of the sensor (8, 10, 12, 14 or 16 bit)
saturated_low       part, 0-1            pixels of value 0
unevenness          part of the median   range of the light over the frame, from medians of 8 x 8 fields
noise               grey values          sigma of the pixel noise (Immerkaer 1996, with a median for the mean)
structure           noise sigmas         spread of the image on scales of about 1/64 of the frame
focus_fine          1                    energy of second differences at 2 pixels / at 8 pixels, noise taken off
focus_coarse        1                    the same at 4 pixels / at 16 pixels
==================  ===================  =====================================================================

Defocus removes fine detail first, so both ratios fall; ratios do not depend on light, gain and number of cells, as
sums of squared gradients (Brenner, Tenengrad) do. The noise that is taken off would otherwise pass for detail.
Sources: J. Immerkaer, "Fast noise variance estimation", CVIU 64 (1996); the ratio of band energies as in the power
log-log slope of M.-A. Bray et al., J. Biomol. Screen. 17 (2012).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8] | NDArray[np.uint16]
Features = dict[str, float]

BLOCK_PX = 1024
"""Larger frames are judged by nine blocks of this side for sharpness and noise."""

NOISE_FLOOR = 0.3
"""Grey values: rounding to whole grey values alone makes about this noise."""

_SAMPLE = 1 << 16
_GRID = 64
_FIELDS = 8
_FULL_SCALE = (255, 1023, 4095, 16383, 65535)
_LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def image_features(plane: Plane) -> Features:
    """Measure one channel of a frame.

    Args:
        plane: uint8 or uint16 [H,W].

    Returns:
        Name -> number, as in the table above; all finite.
    """
    sample = plane[:: _step(plane), :: _step(plane)]
    p01, p50, p99 = (float(v) for v in np.percentile(sample, (1, 50, 99)))
    mean, std = (float(v.ravel()[0]) for v in cv2.meanStdDev(np.ascontiguousarray(plane)))
    noise, energies = _sharpness(plane)
    return {
        "mean": mean,
        "std": std,
        "p01": p01,
        "p50": p50,
        "p99": p99,
        "saturated_high": _at_top(plane),
        "saturated_low": 1.0 - cv2.countNonZero(np.ascontiguousarray(plane)) / plane.size,
        "unevenness": _unevenness(plane),
        "noise": noise,
        "structure": _structure(plane, noise),
        "focus_fine": energies[1] / energies[3],
        "focus_coarse": energies[2] / energies[4],
    }


def _step(plane: NDArray[Any]) -> int:
    return max(1, int(np.ceil(np.sqrt(plane.size / _SAMPLE))))


def _at_top(plane: Plane) -> float:
    """Part of the pixels at the sensor's greatest value: a camera of 12 bits in a file of 16 stops at 4095."""
    top = int(plane.max())
    full = np.iinfo(plane.dtype).max
    if top not in _FULL_SCALE or top > full:
        return 0.0
    return float(np.count_nonzero(plane == top)) / plane.size


def _sharpness(plane: Plane) -> tuple[float, list[float]]:
    """Noise sigma, and the energy of second differences at 1, 2, 4, 8 and 16 pixels with the noise's share taken off."""
    noises, levels = [], []
    for block in _blocks(plane):
        image = block.astype(np.float32)
        noises.append(_noise(image))
        levels.append(_energies(image, noises[-1]))
    mean: NDArray[np.float64] = np.array(levels, np.float64).mean(axis=0)
    return float(np.median(noises)), [float(v) for v in np.maximum(mean, 1e-6)]


def _blocks(plane: Plane) -> list[Plane]:
    height, width = plane.shape
    if max(height, width) <= 2 * BLOCK_PX:
        return [plane]
    side_y, side_x = min(height, BLOCK_PX), min(width, BLOCK_PX)
    tops = sorted({round(i * (height - side_y) / 2) for i in range(3)})
    lefts = sorted({round(i * (width - side_x) / 2) for i in range(3)})
    return [plane[y : y + side_y, x : x + side_x] for y in tops for x in lefts]


def _noise(image: NDArray[np.float32]) -> float:
    if min(image.shape) < 3:
        return 0.0
    response = cv2.filter2D(image, cv2.CV_32F, _LAPLACE)[1:-1, 1:-1]
    step = _step(response)
    return float(np.median(np.abs(response[::step, ::step]))) / (0.6745 * 6.0)


def _energies(image: NDArray[np.float32], noise: float) -> list[float]:
    out = []
    for level in range(5):
        out.append(max(0.0, _second_differences(image) - 6.0 * noise**2 / 4.0**level))
        image = _halved(image)
    return out


def _second_differences(image: NDArray[np.float32]) -> float:
    if min(image.shape) < 3:
        return 0.0
    across = image[:, 2:] + image[:, :-2] - 2 * image[:, 1:-1]
    down = image[2:] + image[:-2] - 2 * image[1:-1]
    return 0.5 * (float(np.vdot(across, across)) / across.size + float(np.vdot(down, down)) / down.size)


def _halved(image: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    if min(height, width) < 1:
        return image
    out: NDArray[np.float32] = cv2.resize(
        image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA
    ).astype(np.float32, copy=False)
    return out


def small(plane: NDArray[Any], longest: int) -> NDArray[np.float32]:
    """The frame reduced by averaging so that its longest side is ``longest`` pixels; a smaller one stays as it is."""
    height, width = plane.shape
    factor = min(1.0, longest / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _structure(plane: Plane, noise: float) -> float:
    picture = cv2.GaussianBlur(small(plane, 2 * _GRID), (0, 0), 1.0)
    spread = picture - cv2.GaussianBlur(picture, (0, 0), 24.0)
    return float(spread.std()) / max(noise, NOISE_FLOOR)


def _unevenness(plane: Plane) -> float:
    picture = small(plane, _GRID)
    fields = min(_FIELDS, *picture.shape)
    height, width = picture.shape[0] // fields, picture.shape[1] // fields
    parts = picture[: fields * height, : fields * width].reshape(fields, height, fields, width)
    medians = np.median(parts.transpose(0, 2, 1, 3).reshape(fields, fields, -1), axis=2)
    middle = float(np.median(medians))
    if middle <= 0:
        return 0.0
    return float(np.percentile(medians, 95) - np.percentile(medians, 5)) / middle
