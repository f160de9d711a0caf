"""Per-frame features: is the image fit to be segmented, and what does the output look like? Pure, cheap, documented.

>>> import numpy as np
>>> features, flags = watch_image(np.zeros((64, 64), np.uint8), "phase")
>>> features["std"], [flag.name for flag in flags]
(0.0, ['blank'])
"""

from cellfleet.monitor.flags import FlagLimits, FrameFlag, limits_for, watch_image
from cellfleet.monitor.output import output_features
from cellfleet.monitor.quality import image_features

__all__ = [
    "FlagLimits",
    "FrameFlag",
    "image_features",
    "limits_for",
    "output_features",
    "watch_image",
]
