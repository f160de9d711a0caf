"""Overlay pictures: the objects' outlines over the contrast-stretched frame, for people's eyes."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.errors import SegmentError

MAX_SIDE_PX = 4096
_MIN_SIDE_PX = 700
_TINT = 0.16
_SAMPLE_PX = 1 << 20

Rgb = NDArray[np.uint8]


def overlay_png(plane: NDArray[np.uint8] | NDArray[np.uint16], labels: NDArray[np.uint32]) -> bytes:
    """The overlay as a PNG file.

    Args:
        plane: uint8 or uint16 [H,W], the channel to show.
        labels: uint32 [H,W].

    Returns:
        An RGB PNG, at most 4096 pixels on a side; small frames are enlarged by a whole factor so that outlines are fine.
    """
    ok, data = cv2.imencode(".png", draw_overlay(plane, labels)[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not ok:
        raise SegmentError("the overlay cannot be encoded as PNG", hint="use --no-overlays")
    return data.tobytes()


def draw_overlay(plane: NDArray[np.uint8] | NDArray[np.uint16], labels: NDArray[np.uint32]) -> Rgb:
    """The overlay as RGB uint8 [h,w,3]: stretched contrast, a light tint of every object and a clear outline."""
    shape = _picture_shape(*labels.shape)
    grey = _stretch(_resize(plane, shape), *_limits(plane))
    marks = _nearest(labels, shape)
    colours = _palette()[marks % 256]
    inside = marks > 0
    edge = _edges(marks) & inside
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    tint = (picture * (1 - _TINT) + colours * _TINT).astype(np.uint8)
    picture[inside] = tint[inside]
    picture[edge] = colours[edge]
    return picture


def _picture_shape(height: int, width: int) -> tuple[int, int]:
    longest = max(height, width)
    if longest > MAX_SIDE_PX:
        return max(1, height * MAX_SIDE_PX // longest), max(1, width * MAX_SIDE_PX // longest)
    factor = max(1, min(8, -(-_MIN_SIDE_PX // longest)))
    return height * factor, width * factor


def _resize(plane: NDArray[np.uint8] | NDArray[np.uint16], shape: tuple[int, int]) -> NDArray[np.float32]:
    if plane.shape == shape:
        return plane.astype(np.float32)
    how = cv2.INTER_AREA if shape[0] < plane.shape[0] else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(plane), (shape[1], shape[0]), interpolation=how).astype(np.float32)


def _limits(plane: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[float, float]:
    """The 0.5th and 99.5th percentile, from a regular sample of a large frame."""
    step = max(1, int(np.ceil(np.sqrt(plane.size / _SAMPLE_PX))))
    low, high = np.percentile(plane[::step, ::step], (0.5, 99.5))
    return float(low), float(high)


def _stretch(grey: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    if high <= low:
        return np.full(grey.shape, 110, np.uint8)
    out: NDArray[np.uint8] = np.clip((grey - low) * (235.0 / (high - low)) + 10.0, 0, 255).astype(np.uint8)
    return out


def _nearest(labels: NDArray[np.uint32], shape: tuple[int, int]) -> NDArray[np.uint32]:
    if labels.shape == shape:
        return labels
    rows = (2 * np.arange(shape[0]) + 1) * labels.shape[0] // (2 * shape[0])
    columns = (2 * np.arange(shape[1]) + 1) * labels.shape[1] // (2 * shape[1])
    out: NDArray[np.uint32] = labels[rows[:, None], columns]
    return out


def _edges(marks: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Pixels whose right, left, upper or lower neighbour has another label."""
    edge = np.zeros(marks.shape, np.bool_)
    down = marks[1:] != marks[:-1]
    right = marks[:, 1:] != marks[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _palette() -> Rgb:
    """256 bright colours; neighbours in number are far apart in hue (golden ratio), so touching objects differ."""
    hues = (np.arange(256) * 0.61803398875) % 1.0
    colours = [colorsys.hsv_to_rgb(h, 0.75 if i % 2 else 0.95, 1.0) for i, h in enumerate(hues.tolist())]
    return np.array(np.round(np.array(colours) * 255), np.uint8)
