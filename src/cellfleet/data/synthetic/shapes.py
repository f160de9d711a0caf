"""From cells to labels: the outline of a cell, and the exact label image of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.data.synthetic.cells import LOBES, Cell

_POINTS = 96
_ANGLES = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
_HARMONICS = 5
_SHIFT = 4
"""Outlines are rounded to 1/16 pixel and drawn with integers: the same labels on every machine."""
_LEAST_PX = 20
"""A cell of which less is in the frame is not drawn there."""

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Drawn:
    """The cells of one frame on a canvas that is larger than the frame by ``pad`` pixels on each side.

    Attributes:
        labels: uint32 [H + 2 pad, W + 2 pad]; 0 background; each number is one 8-connected piece of the frame.
        cells: cell and bounding box of every cell that has pixels on the canvas.
        pad: width of the border.
    """

    labels: NDArray[np.uint32]
    cells: tuple[tuple[Cell, Box], ...]
    pad: int

    def frame(self) -> NDArray[np.uint32]:
        """The labels of the frame itself, uint32 [H, W]."""
        return np.ascontiguousarray(crop(self.labels, self.pad))


def crop(canvas: NDArray[np.generic], pad: int) -> NDArray[np.generic]:
    """Cut off the border of a canvas."""
    return canvas[pad : canvas.shape[0] - pad, pad : canvas.shape[1] - pad]


def outline(cell: Cell) -> NDArray[np.float64]:
    """Points of a cell's outline, [96, 2] (y, x), um; the polygon has exactly the area of the cell."""
    kind, free = cell.kind, 1 - cell.roundness
    radius = np.ones(_POINTS)
    blebs = 0.5 * kind.roughness * (1 - free) * (1 + 3 * cell.death)
    waves = 0.6 * kind.roughness * free + min(blebs, 0.06)
    for n in range(_HARMONICS):
        a, b = cell.modes[2 * n], cell.modes[2 * n + 1]
        radius += waves / math.sqrt(n + 1) * (a * np.cos((n + 2) * _ANGLES) + b * np.sin((n + 2) * _ANGLES))
    radius = np.maximum(radius, 0.45) + _lobes(cell) * free
    stretch = math.sqrt(cell.elongation)
    u = radius * np.cos(_ANGLES) * stretch
    v = radius * np.sin(_ANGLES) / stretch
    v = v + 0.14 * free * (cell.elongation - 1) * float(np.clip(cell.modes[20], -2, 2)) * (u / stretch) ** 2 / stretch
    area = 0.5 * abs(float(np.dot(u, np.roll(v, -1)) - np.dot(v, np.roll(u, -1))))
    scale = math.sqrt(cell.area_um2 / area)
    sin, cos = math.sin(cell.heading), math.cos(cell.heading)
    return np.stack([cell.y + scale * (u * sin + v * cos), cell.x + scale * (u * cos - v * sin)], axis=1)


def _lobes(cell: Cell) -> NDArray[np.float64]:
    """Protrusions as additional radius by angle: the first two at the ends of the cell, the others anywhere."""
    out = np.zeros(_POINTS)
    for k in range(min(cell.lobes, LOBES)):
        place, narrow = float(cell.traits[3 + 2 * k]), float(cell.traits[4 + 2 * k])
        angle = (math.pi * k + 1.1 * (place - 0.5)) if k < 2 else 2 * math.pi * place
        angle += 0.2 * float(cell.modes[10 + k])
        reach = cell.kind.lobe_reach * max(0.0, 0.75 + 0.35 * float(cell.modes[14 + k]))
        out += reach * np.exp((6 + 26 * narrow) * (np.cos(_ANGLES - angle) - 1))
    return out


def draw(cells: Sequence[Cell], height: int, width: int, pixel_size_um: float, pad: int) -> Drawn:
    """Draw all cells; where outlines cross, a pixel goes to the cell in which it lies deeper, so none overlap.

    Args:
        cells: drawn in this order.
        height, width: of the frame, pixels.
        pixel_size_um: um per pixel.
        pad: border of the canvas, pixels.
    """
    labels = np.zeros((height + 2 * pad, width + 2 * pad), np.uint32)
    depth = np.zeros(labels.shape, np.float32)
    boxes: list[tuple[Cell, Box]] = []
    for cell in cells:
        points = np.round((outline(cell) / pixel_size_um + pad - 0.5) * (1 << _SHIFT)).astype(np.int64)
        box = _box(points, labels.shape)
        if box is None:
            continue
        mask = _fill(points, box)
        inside = depth_px(mask)
        inside /= max(float(inside.max()), 1.0)
        wins = (mask > 0) & (inside > depth[box])
        labels[box][wins] = cell.id
        depth[box][wins] = inside[wins]
        boxes.append((cell, box))
    return Drawn(labels, tuple((c, b) for c, b in boxes if _one_piece(labels, c.id, b, pad)), pad)


def depth_px(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Distance of every pixel of a mask to the nearest one outside it, pixels; 0 outside."""
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return np.array(cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)


def _box(points: NDArray[np.int64], shape: tuple[int, ...]) -> Box | None:
    low = (points.min(axis=0) >> _SHIFT) - 1
    high = (points.max(axis=0) >> _SHIFT) + 3
    y0, x0 = (max(int(v), 0) for v in low)
    y1, x1 = (min(int(v), s) for v, s in zip(high, shape, strict=True))
    return (slice(y0, y1), slice(x0, x1)) if y1 - y0 > 2 and x1 - x0 > 2 else None


def _fill(points: NDArray[np.int64], box: Box) -> NDArray[np.uint8]:
    mask = np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), np.uint8)
    origin = np.array([box[0].start, box[1].start]) << _SHIFT
    cv2.fillPoly(mask, [(points - origin)[:, ::-1].astype(np.int32)], 1, lineType=cv2.LINE_8, shift=_SHIFT)
    return mask


def _one_piece(labels: NDArray[np.uint32], number: int, box: Box, pad: int) -> bool:
    """Keep the largest piece of a cell, on the canvas and in the frame; False when nothing is left."""
    view = labels[box]
    _keep_largest(view, view == number, 1)
    height, width = labels.shape
    inner = (
        slice(max(box[0].start, pad), min(box[0].stop, height - pad)),
        slice(max(box[1].start, pad), min(box[1].stop, width - pad)),
    )
    if inner[0].start < inner[0].stop and inner[1].start < inner[1].stop:
        _keep_largest(labels[inner], labels[inner] == number, _LEAST_PX)
    return bool((view == number).any())


def _keep_largest(view: NDArray[np.uint32], mask: NDArray[np.bool_], least: int) -> None:
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    if count < 2:
        return
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = 1 + int(areas.argmax())
    if int(areas.max()) < least:
        view[mask] = 0
    elif count > 2:
        view[mask & (pieces != largest)] = 0
