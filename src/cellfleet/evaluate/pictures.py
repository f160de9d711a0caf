"""Overlays that show what was right and what was wrong; colour is never the only difference.

Found objects have a thin solid outline, false ones a thick one, missed ones a dashed one on top of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.errors import EvaluateError
from cellfleet.evaluate.evaluation import Scene

FOUND = (61, 205, 255)
FALSE = (255, 84, 33)
MISSED = (255, 235, 59)
"""Colours (red, green, blue) that people with any kind of colour vision can tell apart (after Okabe and Ito)."""

_DASH_PX = 4
_LEAST_SIDE_PX = 480
_SAMPLE_PX = 1 << 20

Rgb = NDArray[np.uint8]


def draw(scene: Scene, channel: str, max_side_px: int) -> Rgb:
    """The frame in grey with the outlines of found, false and missed objects.

    Args:
        scene: frame, truth, labels and score.
        channel: the channel to show; the first one when the frame has none of that name.
        max_side_px: larger frames are reduced; small ones are enlarged by a whole factor.

    Returns:
        uint8 [h,w,3], red, green, blue.
    """
    names = scene.frame.channels
    plane = scene.frame.pixels[names.index(channel) if channel in names else 0]
    shape = picture_shape(scene.truth.shape[0], scene.truth.shape[1], max_side_px)
    picture = np.repeat(_grey(plane, shape)[:, :, None], 3, axis=2)
    labels, truth = _nearest(scene.labels, shape), _nearest(scene.truth, shape)
    score = scene.result.score
    false, missed = _members(labels, score.false), _members(truth, score.missed)
    edge = _outline(labels)
    picture[_thick(edge & ~false, 2)] = FOUND
    picture[_thick(edge & false, 4)] = FALSE
    picture[_thick(_outline(truth) & missed, 2) & _dashes(shape)] = MISSED
    return picture


def png(picture: Rgb) -> bytes:
    """As a PNG file."""
    return _encoded(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 6])


def jpeg(picture: Rgb, quality: int = 80) -> bytes:
    """As a JPEG file with full colour resolution, so that thin outlines keep their colour."""
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encoded(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1, *sampling])


def picture_shape(height: int, width: int, max_side_px: int) -> tuple[int, int]:
    """Height and width of the picture of a frame."""
    longest = max(height, width)
    if longest > max_side_px:
        return max(1, height * max_side_px // longest), max(1, width * max_side_px // longest)
    factor = max(1, min(-(-_LEAST_SIDE_PX // longest), max_side_px // longest, 12))
    return height * factor, width * factor


def _grey(plane: NDArray[np.uint8] | NDArray[np.uint16], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretched between the 0.3rd and the 99.7th percentile; a constant frame is mid-grey."""
    step = max(1, int(np.ceil(np.sqrt(plane.size / _SAMPLE_PX))))
    low, high = (float(v) for v in np.percentile(plane[::step, ::step], (0.3, 99.7)))
    how = cv2.INTER_AREA if shape[0] < plane.shape[0] else cv2.INTER_NEAREST
    resized = cv2.resize(np.ascontiguousarray(plane), (shape[1], shape[0]), interpolation=how).astype(np.float32)
    if high <= low:
        return np.full(shape, 110, np.uint8)
    grey: NDArray[np.uint8] = np.clip((resized - low) * (220.0 / (high - low)) + 8.0, 0, 255).astype(np.uint8)
    return grey


def _nearest(labels: NDArray[np.uint32], shape: tuple[int, int]) -> NDArray[np.uint32]:
    rows = (2 * np.arange(shape[0]) + 1) * labels.shape[0] // (2 * shape[0])
    columns = (2 * np.arange(shape[1]) + 1) * labels.shape[1] // (2 * shape[1])
    nearest: NDArray[np.uint32] = labels[rows[:, None], columns]
    return nearest


def _members(labels: NDArray[np.uint32], wanted: Sequence[int]) -> NDArray[np.bool_]:
    return np.isin(labels, np.asarray(wanted, labels.dtype))


def _outline(labels: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Object pixels with a neighbour (right, left, above, below) of another label."""
    edge = np.zeros(labels.shape, np.bool_)
    down = labels[1:] != labels[:-1]
    right = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    edge &= labels > 0
    return edge


def _thick(edge: NDArray[np.bool_], px: int) -> NDArray[np.bool_]:
    return cv2.dilate(edge.astype(np.uint8), np.ones((px, px), np.uint8)).astype(np.bool_)


def _dashes(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Stripes along a diagonal, which cut an outline into dashes."""
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    on: NDArray[np.bool_] = (rows + 2 * columns) // _DASH_PX % 3 < 2
    return on


def _encoded(suffix: str, picture: Rgb, options: list[int]) -> bytes:
    ok, data = cv2.imencode(suffix, picture[:, :, ::-1], options)
    if not ok:
        raise EvaluateError(f"a picture of {picture.shape} cannot be encoded", hint="please report this")
    return bytes(data)
