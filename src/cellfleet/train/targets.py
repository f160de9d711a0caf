"""What the network is taught: foreground, and the distance to the edge of each object.

The distance is Euclidean, from the centre of a pixel to the nearest pixel of another label, divided by its greatest
value in the object, so every object has a peak of 1 whatever its size, and touching objects have a valley between them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellfleet.bundle.spec import Head


def distance_target(labels: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Normalised distance [H,W] in (0, 1] inside objects, 0 in the background.

    Args:
        labels: [H,W], 0 is background.
    """
    out = np.zeros(labels.shape, np.float32)
    values, compact = np.unique(labels, return_inverse=True)
    numbers = compact.reshape(labels.shape).astype(np.int32) + (0 if values[0] == 0 else 1)
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        if box is None:
            continue
        mask = np.pad((numbers[box] == number).astype(np.uint8), 1)
        distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        inside = mask[1:-1, 1:-1] > 0
        # OpenCV's root differs in its last bit with where the array lies in memory; the square is a whole number.
        exact = np.sqrt(np.rint(distance[inside].astype(np.float64) ** 2))
        out[box][inside] = exact / exact.max()
    return out


def targets_of(labels: NDArray[np.uint32], heads: tuple[Head, ...]) -> NDArray[np.float32]:
    """Targets [T,H,W], one channel per head: foreground 0/1, distance, or the class index.

    A ``classes`` head learns from the mask alone when it has two classes, background and cell; more classes need a data
    set that names them, which the manifest does not hold yet.
    """
    foreground = (labels > 0).astype(np.float32)
    channels = [distance_target(labels) if h.kind == "distance" else foreground for h in heads]
    return np.stack(channels)
