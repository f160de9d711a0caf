"""A camera that replays a data set: the images of a folder, on a timer, in the order in which they were taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cellfleet.config.fleet import CameraSection
from cellfleet.data.files import FOREIGN, image_suffix, natural_key, stem_of
from cellfleet.data.index_csv import Row, read_index
from cellfleet.device.camera.source import CapturedImage, field_of, well_of
from cellfleet.errors import CameraError, CellfleetError
from cellfleet.ports import Clock
from cellfleet.wire.base import is_key

_INDEX = "index.csv"


@dataclass
class Timer:
    """The next image is due at this monotonic time."""

    due_s: float


class Replay:
    """A source on a timer.

    Args:
        settings: section [camera].
        folder: the data set: ``images/`` beside an ``index.csv``, or a plain folder of images.
        position: number of images taken before; the next image follows them.
        first_wait_s: time until the first image.
    """

    def __init__(
        self, settings: CameraSection, folder: Path, clock: Clock, *, position: int = 0, first_wait_s: float = 0.0
    ) -> None:
        self._settings, self._clock = settings, clock
        self._images = list_images(folder)
        self._position = position
        self._timer = Timer(clock.monotonic_s() + first_wait_s)
        self._span_s = _span(self._images, settings.interval_s)

    def next(self) -> CapturedImage | None:
        """The image that is due; see ``CameraSource``."""
        if self.is_exhausted() or self._clock.monotonic_s() < self._timer.due_s:
            return None
        round_, number = divmod(self._position, len(self._images))
        image = self._images[number]
        time_s = None if image.time_s is None else image.time_s + round_ * self._span_s
        well = image.well or self._settings.wells[self._position % len(self._settings.wells)]
        return replace(image, position=self._position, time_s=time_s, well=well)

    def mark_taken(self, image: CapturedImage, frame: str) -> None:
        """Advance to the next image. After a delay, missed images are not caught up."""
        del frame
        now_s = self._clock.monotonic_s()
        self._position = image.position + 1
        due_s = self._timer.due_s + self._settings.interval_s
        self._timer.due_s = due_s if due_s > now_s else now_s + self._settings.interval_s

    def is_exhausted(self) -> bool:
        """``max_frames`` were taken, or the last image without ``loop``."""
        max_frames = self._settings.max_frames
        if max_frames and self._position >= max_frames:
            return True
        return not self._settings.loop and self._position >= len(self._images)

    def is_full(self, frames: int, idle_s: float) -> bool:
        """``frames_per_experiment`` were taken."""
        del idle_s
        return frames >= self._settings.frames_per_experiment

    def wait_s(self) -> float:
        """Seconds until the next image is due."""
        return max(0.0, self._timer.due_s - self._clock.monotonic_s()) if not self.is_exhausted() else 3600.0


def list_images(folder: Path) -> list[CapturedImage]:
    """List the images of a folder, ordered by time and well when index.csv has them, else by name.

    Raises:
        CameraError: the folder is missing or holds no images, or its index.csv cannot be read.
    """
    base = folder / "images" if (folder / "images").is_dir() else folder
    if not base.is_dir():
        raise CameraError(f"camera.source: {folder} is not a folder", hint="name a folder of images, or a data set")
    files = sorted((p for p in base.iterdir() if p.is_file() and _is_image(p.name)), key=lambda p: natural_key(p.name))
    if not files:
        raise CameraError(f"camera.source: {base} holds no images", hint="name a folder of TIFF or PNG images")
    rows: dict[str, Row] = {}
    for place in (folder / _INDEX, base / _INDEX):
        if place.is_file():
            try:
                rows = dict(read_index(place).rows)
            except CellfleetError as e:
                raise CameraError(f"camera.source: {e.message}", hint=e.hint) from e
            break
    images = [_image(path, rows.get(stem_of(path.name))) for path in files]
    if all(s.time_s is not None for s in images):
        images.sort(key=lambda s: (s.time_s or 0.0, s.well, natural_key(s.original)))
        first_s = images[0].time_s or 0.0
        return [replace(s, time_s=(s.time_s or 0.0) - first_s) for s in images]
    return [replace(s, time_s=None) for s in images]


def _image(path: Path, row: Row | None) -> CapturedImage:
    facts = row.metadata if row is not None else {}
    well = str(facts.get("well", ""))
    return CapturedImage(
        path=path,
        original=path.name,
        well=well if is_key(well) else (well_of(path.name, "") if row is None or not well else ""),
        field=_field(str(facts.get("field", "")), path.name),
        time_s=_number(str(facts.get("time_s", ""))),
        channels=(row.channels or ()) if row is not None else (),
        pixel_size_um=row.pixel_size_um if row is not None else None,
    )


def _is_image(name: str) -> bool:
    return not name.startswith(".") and bool(image_suffix(name) or name.lower().endswith(FOREIGN))


def _field(text: str, name: str) -> int:
    digits = text.lstrip("fF")
    return max(1, int(digits)) if digits.isdecimal() and len(digits) < 6 else field_of(name)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _span(images: Sequence[CapturedImage], interval_s: float) -> float:
    """Seconds from the first image of one round to the first of the next."""
    times = sorted({s.time_s for s in images if s.time_s is not None})
    if len(times) < 2:
        return interval_s * len(images)
    return times[-1] - times[0] + (times[-1] - times[0]) / (len(times) - 1)
