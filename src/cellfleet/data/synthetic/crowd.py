"""Cells push each other: each is a chain of discs along its long axis; overlapping discs move and turn their cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellfleet.data.synthetic.cells import Cell

Floats = NDArray[np.float64]

DISCS = 3
_OVERLAP = 0.94
"""Discs may overlap by the rest, so that neighbours touch."""
_STIFFNESS = 0.45
_TURN = 0.5
_GRID_UM = 1 / 4096
"""Positions are rounded to this, so that the last bit of a sine on another machine changes nothing."""


def push_apart(cells: Sequence[Cell], height_um: float, width_um: float, margin_um: float, rounds: int) -> None:
    """Move and turn cells until they hardly overlap; keep them within the frame and a margin around it.

    Args:
        cells: changed in place.
        height_um, width_um: size of the frame.
        margin_um: how far outside the frame the world goes on.
        rounds: relaxation steps.
    """
    if not cells:
        return
    place = np.array([[c.y, c.x] for c in cells])
    angle = np.array([c.heading for c in cells])
    radius, reach = _sizes(cells)
    a, b = _near_pairs(place, radius + reach)
    low, high = -margin_um, np.array([height_um, width_um]) + margin_um
    for _ in range(rounds):
        _relax(place, angle, radius, reach, a, b)
        np.clip(place, low, high, out=place)
    place = np.round(place / _GRID_UM) * _GRID_UM
    angle = np.round(angle / _GRID_UM) * _GRID_UM
    for cell, (y, x), heading in zip(cells, place, angle, strict=True):
        cell.y, cell.x, cell.heading = float(y), float(x), float(heading)


def _sizes(cells: Sequence[Cell]) -> tuple[Floats, Floats]:
    """Radius of a cell's discs, and distance of the outer discs from the centre; [n] um."""
    mean = np.array([math.sqrt(c.area_um2 / math.pi) for c in cells])
    stretch = np.array([math.sqrt(c.elongation) for c in cells])
    radius = mean / stretch
    return radius, mean * stretch - radius


def _near_pairs(place: Floats, extent: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    apart = place[:, None] - place[None]
    limit = 1.3 * (extent[:, None] + extent[None])
    first, second = np.nonzero(np.triu((apart**2).sum(axis=2) < limit**2, 1))
    return first, second


def _relax(
    place: Floats, angle: Floats, radius: Floats, reach: Floats, a: NDArray[np.intp], b: NDArray[np.intp]
) -> None:
    """One relaxation step over the pairs (a, b)."""
    along = np.linspace(-1, 1, DISCS)
    arm = np.stack([np.sin(angle), np.cos(angle)], axis=1) * reach[:, None]
    discs = place[:, None] + along[None, :, None] * arm[:, None]
    between = discs[a][:, :, None] - discs[b][:, None]
    distance = np.sqrt((between**2).sum(axis=3)) + 1e-9
    wanted = _OVERLAP * (radius[a] + radius[b])[:, None, None]
    force = np.maximum(wanted - distance, 0) * (_STIFFNESS / DISCS) / distance
    shift = between * force[..., None]
    pushed = {0: (a, shift.sum(axis=2)), 1: (b, -shift.sum(axis=1))}
    n = len(place)
    for which, push in pushed.values():
        for axis in (0, 1):
            place[:, axis] += np.bincount(which, push[..., axis].sum(axis=1), n)
        lever = along[None, :, None] * arm[which][:, None]
        torque = (push[..., 0] * lever[..., 1] - push[..., 1] * lever[..., 0]).sum(axis=1)
        angle += np.clip(_TURN * np.bincount(which, torque, n) / (reach**2 + radius**2), -0.2, 0.2)
