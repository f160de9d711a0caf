"""All cells of a scene through time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cellfleet.data.synthetic.cells import MODES, Cell
from cellfleet.data.synthetic.crowd import push_apart
from cellfleet.data.synthetic.params import CellKind, SceneParams

_SETTLE = 40
"""Relaxation steps of the first placement."""
_PUSHES = 6
_WANDER_H = 1.5
"""Time in which the shape of a cell changes, hours."""
_GROWN_AT_START = 0.97

Fate = Literal["divided", "died"]


def stream(seed: int, *purpose: int) -> np.random.Generator:
    """Random numbers for one purpose: those of one effect do not depend on how many another one draws."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *purpose])))


@dataclass(frozen=True)
class End:
    """A cell that is there no more: its number, kind, mother, birth and end (seconds of the scene), and why."""

    id: int
    kind: str
    parent: int
    born_s: float
    ended_s: float
    fate: Fate


class Population:
    """The cells of one scene; :meth:`step` lets one frame interval pass.

    Attributes:
        cells: those that are there now, by number.
        time_h: hours since the first frame.
        ended: cells that divided or died since the first frame.
    """

    def __init__(self, params: SceneParams, seed: int) -> None:
        self.params = params
        self.time_h = 0.0
        self.ended: list[End] = []
        self._random = stream(seed, 1)
        self._last_id = 0
        self._step_h = params.frame_interval_s / 3600
        self._size = (params.height_px * params.pixel_size_um, params.width_px * params.pixel_size_um)
        self.margin_um = 2.5 * max(k.radius_um for k in params.kinds)
        self.cells: list[Cell] = []
        for kind in params.kinds:
            self._settle(kind)
        push_apart(self.cells, *self._size, self.margin_um, _SETTLE)
        self._warm_up()

    def step(self) -> None:
        """One frame interval: age, move, divide, die, push."""
        n = len(self.cells)
        keep = math.exp(-self._step_h / _WANDER_H)
        wander = self._random.standard_normal((n, MODES)) * math.sqrt(1 - keep * keep)
        turn = self._random.standard_normal(n)
        chance = self._random.random(n)
        self.time_h += self._step_h
        for i, cell in enumerate(self.cells):
            cell.modes = cell.modes * keep + wander[i]
            self._move(cell, float(turn[i]))
            self._grow(cell, float(chance[i]))
        self._renew()
        push_apart(self.cells, *self._size, self.margin_um, _PUSHES)

    def _warm_up(self) -> None:
        """Let some time pass before the first frame, so that divisions and deaths are under way in it."""
        longest = max(max(k.dying_h, 2 * k.mitosis_h) for k in self.params.kinds)
        for _ in range(min(math.ceil(longest / self._step_h), 40)):
            self.step()
        for number, cell in enumerate(self.cells, start=1):
            cell.id, cell.parent = number, 0
            cell.born_h -= self.time_h
        self._last_id = len(self.cells)
        self.time_h = 0.0
        self.ended.clear()

    def _settle(self, kind: CellKind) -> None:
        high, wide = (s + 2 * self.margin_um for s in self._size)
        count = round(kind.density_per_mm2 * high * wide * 1e-6)
        placed: list[tuple[float, float]] = []
        for _ in range(count):
            y, x = self._random.random(2) * (high, wide) - self.margin_um
            near, which, angle = self._random.random(3)
            if placed and near < kind.clustering:
                cy, cx = placed[int(which * len(placed))]
                y = cy + 2 * kind.radius_um * math.sin(2 * math.pi * angle)
                x = cx + 2 * kind.radius_um * math.cos(2 * math.pi * angle)
            placed.append((float(y), float(x)))
            cell = self._new(kind, float(y), float(x), 0)
            cell.age_h = cell.cycle_h * _GROWN_AT_START * float(self._random.random())
            cell.born_h = -cell.age_h
            self.cells.append(cell)

    def _new(self, kind: CellKind, y: float, x: float, parent: int) -> Cell:
        self._last_id += 1
        size, cycle = self._random.standard_normal(2)
        traits = self._random.random(MODES)
        return Cell(
            id=self._last_id,
            parent=parent,
            kind=kind,
            y=y,
            x=x,
            heading=2 * math.pi * float(traits[2]),
            size=math.exp(kind.size_spread * float(np.clip(size, -2.5, 2.5))),
            age_h=0.0,
            cycle_h=kind.division_h * (1 + kind.division_spread * float(np.clip(cycle, -2, 2))),
            born_h=self.time_h,
            modes=self._random.standard_normal(MODES),
            traits=traits,
        )

    def _move(self, cell: Cell, turn: float) -> None:
        kind = cell.kind
        free = 1 - cell.roundness
        cell.heading += turn * math.sqrt(2 * self._step_h / kind.persistence_h) * (0.2 + 0.8 * free)
        way = kind.speed_um_h * self._step_h * free * (1 + 0.3 * float(cell.modes[MODES - 1]))
        dy, dx = way * math.sin(cell.heading), way * math.cos(cell.heading)
        if self._outside(cell.y + dy, cell.x + dx):
            cell.heading += math.pi
            dy, dx = -dy, -dx
        cell.y += dy
        cell.x += dx

    def _outside(self, y: float, x: float) -> bool:
        """Whether a place lies beyond the margin, where cells turn back."""
        return not all(-self.margin_um <= v <= s + self.margin_um for v, s in zip((y, x), self._size, strict=True))

    def _grow(self, cell: Cell, chance: float) -> None:
        if cell.dying_h is not None:
            cell.dying_h += self._step_h
            return
        cell.age_h += self._step_h
        if chance < 1 - math.exp(-cell.kind.death_per_h * self._step_h):
            cell.dying_h = 0.0

    def _renew(self) -> None:
        """Replace cells at the end of their cycle by two daughters, and take away the dead."""
        kept: list[Cell] = []
        daughters: list[Cell] = []
        for cell in self.cells:
            if cell.dying_h is None and cell.age_h >= cell.cycle_h:
                self._end(cell, "divided")
                daughters += self._divide(cell)
            elif cell.death >= 1:
                self._end(cell, "died")
            else:
                kept.append(cell)
        self.cells = kept + daughters

    def _end(self, cell: Cell, fate: Fate) -> None:
        times = (round(cell.born_h * 3600, 3), round(self.time_h * 3600, 3))
        self.ended.append(End(cell.id, cell.kind.name, cell.parent, *times, fate))

    def _divide(self, mother: Cell) -> list[Cell]:
        angle = math.pi * float(self._random.random())
        apart = 0.75 * math.sqrt(mother.area_um2 / math.pi)
        out = []
        for side in (-1, 1):
            place = (mother.y + side * apart * math.sin(angle), mother.x + side * apart * math.cos(angle))
            cell = self._new(mother.kind, *place, mother.id)
            cell.newborn = True
            out.append(cell)
        return out
