"""How good a segmentation is: AP, Dice, IoU, count and confluence error. Numpy only.

>>> import numpy as np
>>> truth = np.array([[1, 1, 0, 2]])
>>> summarise([match(truth, np.array([[5, 5, 0, 0]]))], ["A"]).overall.ap50
0.5
"""

from cellfleet.metrics.matching import THRESHOLDS, FrameScore, match
from cellfleet.metrics.summary import Numbers, Summary, numbers_of, summarise

__all__ = ["THRESHOLDS", "FrameScore", "Numbers", "Summary", "match", "numbers_of", "summarise"]
