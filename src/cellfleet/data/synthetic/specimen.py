"""How much a specimen delays light: the phase map of cells, debris and the dish, in radians."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellfleet.data.synthetic.cells import Cell, smoothstep
from cellfleet.data.synthetic.params import SceneParams
from cellfleet.data.synthetic.population import stream
from cellfleet.data.synthetic.shapes import Box, Drawn, depth_px
from cellfleet.data.synthetic.texture import TILE, sample, smooth_noise, tile

Floats = NDArray[np.float32]

_DRIFT_UM = 0.35
"""Step of loose debris between two frames, um."""


class Specimen:
    """Phase maps of the frames of one scene; what does not change is computed once.

    Args:
        params: of the scene.
        seed: of the scene.
        shape: height and width of the canvas, pixels.
    """

    def __init__(self, params: SceneParams, seed: int, shape: tuple[int, int]) -> None:
        self._params = params
        self._tile = tile(seed, params.pixel_size_um)
        self._dish = _dish(params, seed, shape)
        self._debris = _Debris(params, seed, shape)

    def phase(self, drawn: Drawn, frame: int) -> Floats:
        """Phase map of frame number ``frame``, radians, float32 with the shape of the canvas."""
        out = self._dish.copy()
        for cell, box in drawn.cells:
            self._add(out, drawn, cell, box)
        self._debris.add(out, frame)
        return out

    def _add(self, out: Floats, drawn: Drawn, cell: Cell, box: Box) -> None:
        mask = (drawn.labels[box] == cell.id).view(np.uint8)
        um = self._params.pixel_size_um
        depth = depth_px(mask) - np.float32(0.5)
        ys = np.arange(box[0].start, box[0].stop, dtype=np.float32) - np.float32(cell.y / um + drawn.pad - 0.5)
        xs = np.arange(box[1].start, box[1].stop, dtype=np.float32) - np.float32(cell.x / um + drawn.pad - 0.5)
        sin, cos = np.float32(math.sin(cell.heading)), np.float32(math.cos(cell.heading))
        u = (ys[:, None] * sin + xs[None] * cos) * np.float32(um)
        v = (ys[:, None] * cos - xs[None] * sin) * np.float32(um)
        deep = depth * np.float32(um)
        body = _body(cell, deep) * (1 + self._cytoplasm(cell, u, v) * np.minimum(np.maximum(deep, 0) / 3, 1))
        phase = body + _nucleus(cell, u, v) * np.minimum(depth, 3) / 3
        np.add(out[box], phase, out=out[box], where=mask > 0)

    def _cytoplasm(self, cell: Cell, u: Floats, v: Floats) -> Floats:
        um = self._params.pixel_size_um
        texture = sample(
            self._tile, v / um + np.float32(TILE * cell.traits[20]), u / um + np.float32(TILE * cell.traits[21])
        )
        radius2 = np.float32(cell.full_area_um2 / math.pi * cell.elongation)
        near = np.exp(-(u * u + v * v * np.float32(cell.elongation)) / radius2)
        calm = 1 - 0.93 * cell.roundness
        grain = np.float32(cell.kind.texture * calm) * texture * (np.float32(0.3) + near)
        return np.maximum(grain, np.float32(-0.9))


def _body(cell: Cell, depth_um: Floats) -> Floats:
    """Phase of the body by depth below its outline; a dying cell grows faint at last."""
    kind, roundness = cell.kind, cell.roundness
    radius = math.sqrt(cell.area_um2 / math.pi)
    flat = kind.flatness * (1 - roundness)
    width = np.float32(max(radius * (1 - 0.8 * flat), 0.5))
    s = np.minimum(np.maximum(depth_um, 0) / width, 1)
    middle = np.minimum(np.maximum(depth_um, 0) / np.float32(radius), 1)
    peak = kind.phase_rad ** (1 - roundness) * kind.rounded_rad**roundness if kind.phase_rad > 0 else 0.0
    peak *= (0.85 + 0.3 * float(cell.traits[22])) * (1 - 0.75 * smoothstep(2 * cell.death - 1))
    dome = np.sqrt(s * (2 - s))
    ruffle = np.float32(0.35 * (1 - roundness)) * np.exp(-depth_um / np.float32(1.3)) * (depth_um > -1)
    phase: Floats = np.float32(peak) * (np.float32(1 - 0.4 * flat) * dome + np.float32(0.7 * flat) * middle + ruffle)
    return phase


def _nucleus(cell: Cell, u: Floats, v: Floats) -> Floats:
    """Phase of the nucleus and its nucleoli, in the frame of the cell (u along it), um."""
    free = 1 - cell.roundness
    if free <= 0 or cell.kind.nucleus_rad <= 0:
        return np.zeros_like(u)
    radius = 0.42 * math.sqrt(cell.full_area_um2 / math.pi)
    long, wide = radius * cell.elongation**0.3, radius / cell.elongation**0.3
    du = u - np.float32(0.25 * radius * cell.modes[21])
    q = (du / np.float32(long)) ** 2 + (v / np.float32(wide)) ** 2
    edge = np.exp(-(((np.sqrt(q) - 1) * np.float32(radius / 0.7)) ** 2))
    out = np.float32(0.6) * np.maximum(1 - q, 0) ** np.float32(0.5) + np.float32(0.5) * edge
    for k in range(1 + int(3 * float(cell.traits[15]))):
        angle = 2 * math.pi * float(cell.traits[16 + k])
        far = 0.25 + 0.35 * float(cell.traits[(17 + k) % 24])
        dy = v - np.float32(far * wide * math.sin(angle))
        dx = du - np.float32(far * long * math.cos(angle))
        out += np.float32(1.3) * np.exp(-(dx * dx + dy * dy) / np.float32(2 * (0.13 * radius) ** 2))
    return np.asarray(np.float32(cell.kind.nucleus_rad * free) * out, np.float32)


def _dish(params: SceneParams, seed: int, shape: tuple[int, int]) -> Floats:
    """Roughness of the dish: fine and coarse, the same in every frame."""
    if params.background_rad == 0:
        return np.zeros(shape, np.float32)
    random = stream(seed, 3)
    side = max(shape)
    fine = smooth_noise(random, side, 1.2 / params.pixel_size_um)
    coarse = smooth_noise(random, side, 6 / params.pixel_size_um)
    rough = (np.float32(0.6) * fine + np.float32(0.8) * coarse)[: shape[0], : shape[1]]
    return np.ascontiguousarray(rough) * np.float32(params.background_rad)


class _Debris:
    """Specks on the dish: each a few grains, some loose and drifting."""

    def __init__(self, params: SceneParams, seed: int, shape: tuple[int, int]) -> None:
        self._um = params.pixel_size_um
        share = shape[0] * shape[1] / (params.height_px * params.width_px)
        count = math.ceil(params.debris * share)
        random = stream(seed, 4)
        self._place = random.random((count, 2)) * np.array(shape)
        self._radius = params.debris_um / self._um * np.exp(0.4 * random.standard_normal(count))
        self._phase = random.choice([0.12, 0.35, 1.6], count, p=[0.6, 0.3, 0.1]) * (0.7 + 0.6 * random.random(count))
        self._grains = 0.8 * random.standard_normal((count, 4, 2))
        self._grain_size = 0.75 * random.random((count, 4)) ** 2
        self._loose = random.random(count) < 0.3
        self._way = random.standard_normal((count, 2)) * _DRIFT_UM / self._um

    def add(self, out: Floats, frame: int) -> None:
        """Add the specks of a frame to a phase map."""
        places = np.mod(self._place + frame * self._way * self._loose[:, None], out.shape)
        specks = zip(places, self._radius, self._phase, self._grains, self._grain_size, strict=True)
        for place, radius, phase, grains, sizes in specks:
            for grain, size in zip(grains, sizes, strict=True):
                _blob(out, place + grain * radius, size * radius, phase)


def _blob(out: Floats, place: NDArray[np.float64], sigma: float, phase: float) -> None:
    sigma = max(sigma, 0.45)
    reach = math.ceil(3 * sigma)
    y0, x0 = (max(math.floor(p) - reach, 0) for p in place)
    y1, x1 = (min(math.floor(p) + reach + 1, s) for p, s in zip(place, out.shape, strict=True))
    if y0 >= y1 or x0 >= x1:
        return
    gy = np.exp(-((np.arange(y0, y1) - place[0]) ** 2) / (2 * sigma**2))
    gx = np.exp(-((np.arange(x0, x1) - place[1]) ** 2) / (2 * sigma**2))
    out[y0:y1, x0:x1] += (phase * gy[:, None] * gx[None]).astype(np.float32)
