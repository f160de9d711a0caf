"""A synthetic time-lapse: cells that live, photographed through phase contrast, with exact ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellfleet.data.synthetic.cells import Cell, State
from cellfleet.data.synthetic.optics import Camera, Pixels, halo_reach_px, phase_contrast
from cellfleet.data.synthetic.params import SceneParams
from cellfleet.data.synthetic.population import End, Population
from cellfleet.data.synthetic.shapes import draw
from cellfleet.data.synthetic.specimen import Specimen
from cellfleet.errors import DataError

MAX_CELLS = 20000


@dataclass(frozen=True)
class Track:
    """One cell in one frame.

    Attributes:
        id: its number, which is its label in every frame of the scene.
        kind: name of its kind.
        parent: number of its mother; 0: it was there before the first frame.
        state: growing, dividing or dying.
        born_s: seconds of the scene at its birth; negative: before the first frame.
        y_px, x_px: centre of its pixels in the frame.
        area_px: its pixels in the frame.
    """

    id: int
    kind: str
    parent: int
    state: State
    born_s: float
    y_px: float
    x_px: float
    area_px: int


@dataclass(frozen=True)
class SyntheticFrame:
    """One frame and the truth about it.

    Attributes:
        pixels: uint8 or uint16 [H, W].
        labels: uint32 [H, W], 0 background; the geometry that was drawn; a cell keeps its number from frame to frame,
            each is one piece, none overlap.
        time_s: seconds since the first frame.
        tracks: the cells in the frame, by number.
        ended: cells (in the frame or beside it) that divided or died since the frame before.
    """

    pixels: Pixels
    labels: NDArray[np.uint32]
    time_s: float
    tracks: tuple[Track, ...]
    ended: tuple[End, ...]


def simulate(params: SceneParams, frames: int, seed: int, *, stride: int = 1) -> Iterator[SyntheticFrame]:
    """Make a time-lapse, frame by frame; the same arguments give the same frames.

    What the optics and the camera do draws its own random numbers: to change them changes no cell.

    Args:
        params: the scene.
        frames: number of frames.
        seed: 0 or greater.
        stride: take one frame of so many frame intervals.

    Raises:
        DataError: frames, stride or seed out of bounds, or too many cells.
    """
    for name, value, least in (("frames", frames, 1), ("stride", stride, 1), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"synthetic scene: {name} must be at least {least}, not {value}", hint="correct that value")
    _check_crowd(params)
    return _frames(params, frames, seed, stride)


def _frames(params: SceneParams, frames: int, seed: int, stride: int) -> Iterator[SyntheticFrame]:
    pad = halo_reach_px(params)
    people = Population(params, seed)
    specimen = Specimen(params, seed, (params.height_px + 2 * pad, params.width_px + 2 * pad))
    camera = Camera(params, seed)
    for frame in range(frames):
        if frame:
            people.ended.clear()
            for _ in range(stride):
                people.step()
        moment = frame * stride
        drawn = draw(people.cells, params.height_px, params.width_px, params.pixel_size_um, pad)
        light = phase_contrast(specimen.phase(drawn, moment), params)
        labels = drawn.frame()
        yield SyntheticFrame(
            pixels=camera.photograph(light, pad, moment),
            labels=labels,
            time_s=moment * params.frame_interval_s,
            tracks=_tracks(labels, [c for c, _ in drawn.cells]),
            ended=tuple(people.ended),
        )


def _check_crowd(params: SceneParams) -> None:
    area_mm2 = params.height_px * params.width_px * params.pixel_size_um**2 * 1e-6
    count = area_mm2 * sum(k.density_per_mm2 for k in params.kinds)
    if count > MAX_CELLS:
        raise DataError(
            f"synthetic scene: {count:.0f} cells in one frame are too many (at most {MAX_CELLS})",
            hint="choose a smaller frame, pixel_size_um or density_per_mm2",
        )
    covered = sum(k.density_per_mm2 * np.pi * k.radius_um**2 * 1e-6 for k in params.kinds)
    if covered > 1:
        raise DataError(
            f"synthetic scene: the cells cover {100 * covered:.0f} % of the dish, which has no room for them",
            hint="choose a smaller density_per_mm2 or radius_um",
        )


def _tracks(labels: NDArray[np.uint32], cells: list[Cell]) -> tuple[Track, ...]:
    ys, xs = np.nonzero(labels)
    values, number = np.unique(labels[ys, xs], return_inverse=True)
    area = np.bincount(number, minlength=len(values))
    y = np.bincount(number, ys, minlength=len(values)) / np.maximum(area, 1)
    x = np.bincount(number, xs, minlength=len(values)) / np.maximum(area, 1)
    known = {c.id: c for c in cells}
    out = []
    for i, value in enumerate(values):
        c = known[int(value)]
        born = round(c.born_h * 3600, 3)
        place = (round(float(y[i]), 3), round(float(x[i]), 3))
        out.append(Track(c.id, c.kind.name, c.parent, c.state, born, *place, int(area[i])))
    return tuple(out)
