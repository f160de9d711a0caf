"""Video to frames: AVI, MP4 and MOV through OpenCV, one frame at a time, each with its own time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.data.images.frame import COLOURS, Frame
from cellfleet.errors import ReadError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".m4v")
"""Suffixes by which a file counts as a video, lower case."""

_AGAIN = "copy it again from where it came from; the frames before that were read"
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def is_video(path: Path) -> bool:
    """The file's name ends as a video's does."""
    return path.name.lower().endswith(VIDEO_SUFFIXES)


def count_frames(path: Path) -> int:
    """Number of frames that the file announces; 0 when it does not say.

    Raises:
        ReadError: no video that can be read.
    """
    with _opened(path) as video:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))


def read_video(
    path: Path,
    channels: Sequence[str],
    *,
    pixel_size_um: float | None = None,
    wanted: Callable[[int], bool] = lambda _index: True,
) -> Iterator[Frame]:
    """Read a video frame by frame; only one frame is in memory.

    A video holds colours, so the rule for channels is: red, green and blue are picked by name; for one channel of
    another name, three equal planes give that plane, and planes that differ give their luma (0.299 R + 0.587 G +
    0.114 B), which is what a grey video becomes when a codec stores it as colour.

    Args:
        path: an AVI, MP4 or MOV file.
        channels: names of the channels wanted.
        pixel_size_um: pixel size, which videos do not carry.
        wanted: asked with each frame's index, from 0; the others are passed over without being decoded in full.

    Yields:
        Frames of uint8 [C,H,W] whose metadata has ``frame_index`` and ``time_s``, the frame's own time stamp.

    Raises:
        ReadError: not a video, channels that a video cannot have, or truncated; the message says how many frames were
            read. Of a truncated video the last frame that can be decoded is not given out, as it may be damaged.
    """
    names = tuple(channels)
    _check_channels(path, names)
    with _opened(path) as video:
        announced = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        held: Frame | None = None
        index = given = 0
        while video.grab():
            if held is not None:
                yield held
                held, given = None, given + 1
            if wanted(index):
                time_s = max(0.0, float(video.get(cv2.CAP_PROP_POS_MSEC)) / 1e3)
                decoded, picture = video.retrieve()
                if not decoded:
                    break
                metadata = {"frame_index": str(index), "time_s": f"{time_s:.9g}"}
                pixels = _to_channels(picture, names)
                held = Frame(pixels, names, pixel_size_um, metadata, f"{path} frame {index}")
            index += 1
        if index < max(1, announced) or _is_cut(path):
            safe = max(0, index - 1)
            raise ReadError(
                f"{path}: truncated or damaged: {safe} of {max(announced, index)} frames could be read", hint=_AGAIN
            )
        if held is not None:
            yield held


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    """A capture that is closed afterwards; the library's own messages are silenced, errors are ReadError."""
    _check_magic(path)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # pixels as they are stored
    except cv2.error:
        video = cv2.VideoCapture()
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not video.isOpened():
            raise ReadError(
                f"{path}: truncated or damaged, or a codec that is not known here: 0 frames could be read",
                hint="copy it again; or convert it, for example with ffmpeg to MJPEG in AVI",
            )
        yield video
    finally:
        video.release()


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as f:
            head = f.read(12)
    except OSError as e:
        raise ReadError(f"{path}: {e.strerror or e}", hint="check the path and its permissions") from e
    if not (head[:4] == b"RIFF" and head[8:12] == b"AVI ") and head[4:8] not in _BOXES:
        raise ReadError(f"{path}: neither AVI nor MP4 nor MOV", hint="convert it, or leave it out")


def _check_channels(path: Path, names: tuple[str, ...]) -> None:
    if len(set(names)) == len(names) and (len(names) == 1 or (names and all(n.lower() in COLOURS for n in names))):
        return
    raise ReadError(
        f"{path}: the channels {', '.join(names) or 'none'} are wanted, a video has red, green, blue or one grey channel",
        hint="export the channels as images, or use a model with one channel",
    )


def _to_channels(picture: NDArray[Any], names: tuple[str, ...]) -> NDArray[np.uint8]:
    blue, green, red = (picture[:, :, i] for i in range(3))
    planes = {"red": red, "green": green, "blue": blue}
    if all(n.lower() in planes for n in names):
        return np.stack([planes[n.lower()] for n in names])
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return np.ascontiguousarray(red[None])
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)[None]


def _is_cut(path: Path) -> bool:
    """The outermost parts of the file announce more bytes than it has."""
    size = path.stat().st_size
    with path.open("rb") as f:
        riff = f.read(4) == b"RIFF"
        at = 0
        while at + 8 <= size:
            length = _part_length(f, at, riff)
            if length < 8:
                return False  # "up to the end", or never filled in by the program that recorded it
            at += length
    return at > size


def _part_length(f: BinaryIO, at: int, riff: bool) -> int:
    f.seek(at)
    head = f.read(16)
    if riff:
        length = int.from_bytes(head[4:8], "little")
        return 8 + length + length % 2 if length else 0
    length = int.from_bytes(head[:4], "big")
    return int.from_bytes(head[8:16], "big") if length == 1 else length
