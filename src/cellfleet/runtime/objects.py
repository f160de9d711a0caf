"""The kernels as everybody uses them: training, evaluation and instruments cut and measure objects by these functions.

The kernels are C++ (``cpp/``); ``docs/architecture.md`` states what they compute, to the bit.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellfleet import _kernels
from cellfleet.bundle.spec import ObjectParams
from cellfleet.errors import SegmentError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
_P = TypeVar("_P", np.uint8, np.uint16)
_L = TypeVar("_L", np.uint8, np.uint32)

STD_FLOOR = 1e-6
"""Least standard deviation that a frame is divided by; a constant frame becomes all zeros."""


def moments(pixels: Pixels) -> tuple[float, float]:
    """Mean and population standard deviation of one channel from exact integer sums.

    Args:
        pixels: uint8 or uint16 [H,W].

    Raises:
        SegmentError: other dtype or shape, or no pixels.
    """
    return _call("take the moments of a channel", _kernels.moments, np.ascontiguousarray(pixels))  # type: ignore[no-any-return]


def frame_moments(pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation (at least STD_FLOOR) of every channel.

    Args:
        pixels: uint8 or uint16 [C,H,W].

    Returns:
        mean and std, float32 [C].
    """
    pairs = np.array([moments(channel) for channel in pixels], np.float64).reshape(-1, 2)
    return pairs[:, 0].astype(np.float32), np.maximum(pairs[:, 1], STD_FLOOR).astype(np.float32)


def resample_pixels(pixels: NDArray[_P], height: int, width: int) -> NDArray[_P]:
    """Resample [H,W] or [C,H,W] to another grid with an antialiased triangle filter; equal sizes copy.

    Args:
        pixels: uint8 or uint16.
        height, width: of the result, in pixels.

    Raises:
        SegmentError: other dtype or shape, or a side of zero.
    """
    if pixels.ndim == 3:
        out = np.empty((pixels.shape[0], height, width), pixels.dtype)
        for c in range(pixels.shape[0]):
            out[c] = resample_pixels(pixels[c], height, width)
        return out
    return _call("resample", _kernels.resample, np.ascontiguousarray(pixels), int(height), int(width))  # type: ignore[no-any-return]


def resample_labels(labels: NDArray[_L], height: int, width: int) -> NDArray[_L]:
    """Labels or class indices on another grid; they cannot be averaged, so every pixel takes the value at its centre.

    Args:
        labels: integers [H,W].
        height, width: of the result, in pixels.
    """
    if labels.shape == (height, width):
        return labels
    rows = (2 * np.arange(height) + 1) * labels.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * labels.shape[1] // (2 * width)
    return np.ascontiguousarray(labels[rows[:, None], columns])


def quantise(probabilities: NDArray[np.float32]) -> NDArray[np.uint16]:
    """floor(p * 65535 + 0.5), clamped, as uint16.

    Args:
        probabilities: float32 [H,W].

    Raises:
        ValueError: for values that are not numbers.
    """
    return _kernels.quantise(np.ascontiguousarray(probabilities))


def threshold_of(probability: float) -> int:
    """A threshold in [0, 1] as the integer that quantised maps are compared with.

    >>> threshold_of(0.5)
    32768
    """
    return _rounded(probability * 65535)


def objects_from_maps(
    foreground: NDArray[np.uint16], distance: NDArray[np.uint16], params: ObjectParams, scale: float = 1.0
) -> NDArray[np.uint32]:
    """Cut objects from quantised maps; the only post-processing of cellfleet.

    Args:
        foreground: uint16 [H,W], quantised foreground probability.
        distance: uint16 [H,W], quantised normalised distance; it is scratch and holds nothing of use afterwards.
        params: thresholds, and lengths and areas in pixels of the model's grid.
        scale: pixels of the maps per pixel of the model's grid along one side; areas and the number of smoothing passes
            (whose variance is an area) are multiplied by its square and rounded half up.

    Returns:
        uint32 [H,W]: 0 is background, objects are 1..n in the raster order of their first pixels.

    Raises:
        SegmentError: maps of other dtypes or different shapes.
    """
    area = scale * scale
    labels, _ = _call(
        "cut objects",
        _kernels.objects,
        foreground,
        distance,
        foreground_threshold=threshold_of(params.foreground_threshold),
        seed_threshold=threshold_of(params.seed_threshold),
        smooth_passes=_rounded(params.smooth_passes * area),
        min_seed_area=_rounded(params.min_seed_area_px * area),
        min_area=_rounded(params.min_area_px * area),
    )
    return labels  # type: ignore[no-any-return]


def measure_objects(
    labels: NDArray[np.uint32], intensity: Pixels, foreground: NDArray[np.uint16]
) -> dict[str, NDArray[Any]]:
    """Measure every object.

    Args:
        labels: uint32 [H,W], 0 or 1..n without gaps.
        intensity: uint8 or uint16 [H,W].
        foreground: uint16 [H,W], quantised foreground probability.

    Returns:
        Columns of n values, object 1 first: ``area_px`` (uint64), ``centroid_y``, ``centroid_x`` (pixels from the
        centre of the first pixel), ``bbox_y0`` ``bbox_x0`` ``bbox_y1`` ``bbox_x1`` (int64, half-open),
        ``eccentricity``,
        ``mean_intensity`` (grey values), ``mean_probability`` (0..1).

    Raises:
        SegmentError: other dtypes, different shapes, or gaps in the labels.
    """
    count = int(labels.max(initial=0))
    return _call(  # type: ignore[no-any-return]
        "measure objects", _kernels.measure, labels, count, np.ascontiguousarray(intensity), foreground
    )


def compact_labels(labels: NDArray[np.uint32]) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """Labels as uint16 when there are at most 65,535 objects, else unchanged."""
    return labels.astype(np.uint16) if int(labels.max(initial=0)) <= np.iinfo(np.uint16).max else labels


def _rounded(value: float) -> int:
    return int(np.floor(value + 0.5))


def _call(action: str, kernel: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return kernel(*args, **kwargs)
    except (TypeError, ValueError) as e:
        shapes = ", ".join(f"{a.dtype} {list(a.shape)}" for a in args if isinstance(a, np.ndarray))
        reason = "unsuitable arrays" if isinstance(e, TypeError) else str(e)
        raise SegmentError(
            f"cannot {action}: {reason} (got {shapes})",
            hint="frames are uint8 or uint16, maps uint16, labels uint32; all of one shape and C-contiguous",
        ) from e
