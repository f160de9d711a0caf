"""Small pictures of a frame for the fleet pages: the frame, and the outlines of its objects over it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.errors import SegmentError
from cellfleet.runtime.results.overlay import draw_overlay

LONGEST_PX = 480
_QUALITY = 80


def frame_jpeg(plane: NDArray[Any]) -> bytes:
    """One channel of a frame as JPEG, contrast stretched, at most 480 pixels on a side.

    Args:
        plane: uint8 or uint16 [H,W].
    """
    small = _reduced(plane.astype(np.float32))
    low, high = (float(v) for v in np.percentile(small, (0.5, 99.5)))
    if high <= low:
        return _jpeg(np.full(small.shape, 110, np.uint8))
    return _jpeg(np.clip((small - low) * (235.0 / (high - low)) + 10.0, 0, 255).astype(np.uint8))


def overlay_jpeg(plane: NDArray[Any], labels: NDArray[np.uint32]) -> bytes:
    """The frame with the outlines of its objects as JPEG, at most 480 pixels on a side.

    Args:
        plane: uint8 or uint16 [H,W].
        labels: uint32 [H,W].
    """
    return _jpeg(_reduced(draw_overlay(plane, labels))[:, :, ::-1])


def _reduced(picture: NDArray[Any]) -> NDArray[Any]:
    factor = LONGEST_PX / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _jpeg(picture: NDArray[Any]) -> bytes:
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(picture), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise SegmentError("a picture cannot be encoded as JPEG")
    return data.tobytes()
