"""Synthetic phase-contrast time-lapses with exact ground truth: every effect a parameter, everything from one seed.

>>> params = SceneParams(height_px=64, width_px=64)
>>> first, second = simulate(params, frames=2, seed=1)
>>> first.pixels.shape, first.labels.dtype.name, second.time_s
((64, 64), 'uint32', 600.0)
"""

from cellfleet.data.synthetic.params import ROUND, SPREAD, CellKind, SceneParams
from cellfleet.data.synthetic.scene import SyntheticFrame, simulate
from cellfleet.data.synthetic.writer import write_data_set, write_time_lapse

__all__ = [
    "ROUND",
    "SPREAD",
    "CellKind",
    "SceneParams",
    "SyntheticFrame",
    "simulate",
    "write_data_set",
    "write_time_lapse",
]
