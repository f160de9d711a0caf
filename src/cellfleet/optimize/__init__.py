"""Optimising: from an exported model to variants for more engines, smaller and faster; each is kept only if it passes.

>>> from cellfleet.optimize import judge
>>> judge(0.705, 0.71, 0.01)
(True, 'loses 0.005 AP@0.5 (0.710 -> 0.705); the limit is 0.010')
"""

from cellfleet.optimize.result import MeasuredVariant, judge, load_record
from cellfleet.optimize.run import optimize

__all__ = ["MeasuredVariant", "judge", "load_record", "optimize"]
