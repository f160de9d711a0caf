"""A cell and what becomes of it: growth, rounding up, division, death. Lengths in um, times in hours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellfleet.data.synthetic.params import CellKind

State = Literal["growing", "dividing", "dying"]

MODES = 24
"""Slowly changing standard-normal numbers of a cell; the outline and its speed are drawn from them."""
LOBES = 6
DYING_ROUNDS = 0.25
DYING_SHRINKS_TO = 0.22


def smoothstep(t: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@dataclass
class Cell:
    """One living or dying cell.

    Attributes:
        id, parent: number of the cell and of its mother (0: there from the start).
        kind: what it is.
        y, x: centre, um from the upper left corner of the frame.
        heading: direction of its long axis and of its movement, radians.
        size: its own factor on the mean area.
        age_h, cycle_h: time since birth, time from birth to division.
        born_h: when it was born, hours of the scene; negative: before the first frame.
        dying_h: time since it began to die; None while it lives.
        modes: [MODES] standard-normal numbers that wander.
        traits: [MODES] uniform numbers in [0, 1) that never change.
        newborn: it came from a division within the scene and starts round.
    """

    id: int
    parent: int
    kind: CellKind
    y: float
    x: float
    heading: float
    size: float
    age_h: float
    cycle_h: float
    born_h: float
    modes: NDArray[np.float64] = field(repr=False)
    traits: NDArray[np.float64] = field(repr=False)
    dying_h: float | None = None
    newborn: bool = False

    @property
    def state(self) -> State:
        """What it is doing."""
        if self.dying_h is not None:
            return "dying"
        return "dividing" if self.cycle_h - self.age_h < self.kind.mitosis_h else "growing"

    @property
    def death(self) -> float:
        """How far its death has gone, 0 to 1."""
        return 0.0 if self.dying_h is None else min(self.dying_h / self.kind.dying_h, 1.0)

    @property
    def roundness(self) -> float:
        """0: spread as its kind is, 1: round (just before and after division, and while dying)."""
        k = self.kind
        before = smoothstep(1.7 - 1.7 * (self.cycle_h - self.age_h) / k.mitosis_h)
        after = 1 - smoothstep(self.age_h / k.mitosis_h) if self.newborn else 0.0
        return max(before, after, smoothstep(self.death / DYING_ROUNDS))

    @property
    def full_area_um2(self) -> float:
        """Area when spread, um2: grows from birth to division; the mean over the cycle is that of its kind."""
        k = self.kind
        share = min(self.age_h / self.cycle_h, 1.0)
        return math.pi * k.radius_um**2 * self.size * (1 + k.growth * share) / (1 + k.growth / 2)

    @property
    def area_um2(self) -> float:
        """Area now, um2."""
        shrunk = 1 - (1 - DYING_SHRINKS_TO) * smoothstep((self.death - DYING_ROUNDS) / (1 - DYING_ROUNDS))
        return self.full_area_um2 * (1 - (1 - self.kind.rounded_area) * self.roundness) * shrunk

    @property
    def elongation(self) -> float:
        """Length / width of the body now."""
        own = 1 + (self.kind.elongation - 1) * (0.45 + 1.1 * float(self.traits[0]))
        return 1 + (own - 1) * (1 - self.roundness)

    @property
    def lobes(self) -> int:
        """Number of protrusions."""
        most = self.kind.lobes
        return most if most < 2 else 1 + min(int(float(self.traits[1]) * most), most - 1)
