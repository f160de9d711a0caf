"""Small videos for tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read once, at the first use of a video in a process


def moving_disc(index: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A bright disc on a dim ground [H,W]; it moves to the right with ``index``."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - 12 - 4 * index) ** 2 < 64
    return np.where(inside, 180, 40).astype(np.uint8)


def write_video(
    path: Path, pictures: Sequence[NDArray[np.uint8]], *, codec: str = "MJPG", per_second: float = 10.0
) -> Path:
    """Write grey [H,W] or colour [H,W,3] (red, green, blue) pictures as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, per_second, (width, height))
    assert writer.isOpened(), f"{codec} cannot be written here"
    for picture in pictures:
        writer.write(np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture[:, :, ::-1].copy())
    writer.release()
    return path
