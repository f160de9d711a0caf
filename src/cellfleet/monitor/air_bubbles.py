"""Air bubbles in transmitted light: wide circles with a strong edge all around and nothing inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.monitor.quality import Plane, small

_SIDE_PX = 144
_ANGLES = 48
_MIN_RADIUS_PX = 6
_GRADIENT = 150
_ROUNDNESS = 0.9
_RING_CONTRAST = 90.0
_INSIDE_SPREAD = 25.0
_INSIDE_STEP = 0.35
"""Of 256 grey steps over the frame's own range. Judged on 82 real phase frames, whose roundest structures (rings of dust
far out of focus) reach 22, and on drawn bubbles, which reach 112 and more."""


@dataclass(frozen=True)
class Bubble:
    """A circle in pixels of the frame."""

    y_px: float
    x_px: float
    radius_px: float


def find_bubbles(plane: Plane) -> tuple[Bubble, ...]:
    """Find bubbles of a radius of at least a 24th of the frame's longest side.

    Args:
        plane: uint8 or uint16 [H,W], transmitted light.
    """
    picture = small(plane, _SIDE_PX)
    if min(picture.shape) < 4 * _MIN_RADIUS_PX:
        return ()
    grey = _contrasted(picture)
    circles = cv2.HoughCircles(
        grey, cv2.HOUGH_GRADIENT_ALT, 1.5, 8, param1=_GRADIENT, param2=_ROUNDNESS,
        minRadius=_MIN_RADIUS_PX, maxRadius=min(grey.shape) // 2,
    )  # fmt: skip
    if circles is None:
        return ()
    scale = max(plane.shape) / max(grey.shape)
    found = [(float(x), float(y), float(r)) for x, y, r, *_ in circles.reshape(-1, circles.shape[-1])]
    return tuple(Bubble(y * scale, x * scale, r * scale) for x, y, r in found if _is_bubble(grey, x, y, r))


def covered_percent(bubbles: tuple[Bubble, ...], plane: Plane) -> float:
    """Area of the bubbles in percent of the frame; overlaps count twice, at most 100."""
    return min(100.0, 100.0 * sum(np.pi * b.radius_px**2 for b in bubbles) / plane.size)


def _contrasted(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    middle = float(np.median(picture))
    low, high = (float(v) for v in np.percentile(picture, (1, 99)))
    gain = 110.0 / max(high - middle, middle - low, 1e-6)
    out: NDArray[np.uint8] = np.clip((picture - middle) * gain + 128.0, 0, 255).astype(np.uint8)
    return out


def _is_bubble(grey: NDArray[np.uint8], x: float, y: float, radius: float) -> bool:
    """A ring that stands out on both of its sides in all directions, and an even inside as bright as the dish."""
    ring, seen = _polar(grey, x, y, np.linspace(0.6 * radius, 1.4 * radius, max(12, int(radius))))
    if not seen.any(axis=1).all():
        return False
    profile = (ring * seen).sum(axis=1) / seen.sum(axis=1)
    inside, _ = _polar(grey, x, y, np.linspace(0.0, 0.7 * radius, 6))
    around, visible = _polar(grey, x, y, np.array([1.5 * radius]))
    outside = float(np.median(around[visible])) if visible.any() else float(profile[-1])
    contrast = float(np.ptp(profile))
    same = (
        abs(float(np.median(inside)) - outside) <= _INSIDE_STEP * contrast
    )  # a cell is darker or brighter than the dish
    return contrast >= _RING_CONTRAST and float(inside.std()) <= _INSIDE_SPREAD and same


def _polar(grey: NDArray[np.uint8], x: float, y: float, radii: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Grey values [radius, angle] around a point, and which of them lie within the picture."""
    angles = np.linspace(0.0, 2.0 * np.pi, _ANGLES, endpoint=False)
    columns = (x + np.outer(radii, np.cos(angles))).astype(np.float32)
    rows = (y + np.outer(radii, np.sin(angles))).astype(np.float32)
    seen = (columns >= 0) & (columns <= grey.shape[1] - 1) & (rows >= 0) & (rows <= grey.shape[0] - 1)
    values = cv2.remap(grey, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    return values, seen
