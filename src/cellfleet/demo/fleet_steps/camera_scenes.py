"""Scenes of the demo's cameras: frames that are not in the training data."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from cellfleet.data import DataSetVersion
from cellfleet.data.locate import to_path
from cellfleet.data.synthetic import SceneParams, write_data_set
from cellfleet.ports import ProgressFn, make_dir, write_atomic

FRAMES = 60
"""Frames of one time-lapse."""
SIDE_PX = 544
_WELLS_PER_KIND = 2
_HALF_HOURS = 2
_SEED_STEP = 7919
"""Added to the seed per instrument, so that no scene equals training data."""


@dataclass(frozen=True)
class Scene:
    """The images that one camera replays.

    Attributes:
        folder: folder with images/ and index.csv.
        frames: number of frames of one time-lapse.
        channels, pixel_size_um: channels and pixel size of the images.
        side_px: shorter side of an image, pixels.
    """

    folder: Path
    frames: int
    channels: tuple[str, ...]
    pixel_size_um: float | None
    side_px: int


def synthetic_scene(folder: Path, seed: int, number: int, progress: ProgressFn) -> Scene:
    """Make four wells of two kinds of growing cells, 15 frames each.

    Args:
        folder: folder to make.
        seed: seed of the demo.
        number: number of the instrument, from 1.
    """
    params = SceneParams(height_px=SIDE_PX, width_px=SIDE_PX)
    times = FRAMES // (_WELLS_PER_KIND * len(params.kinds))
    own = seed + _SEED_STEP * number
    write_data_set(folder, params, own, progress, sequences=_WELLS_PER_KIND, frames=times, stride=_HALF_HOURS)
    return Scene(folder, FRAMES, ("phase",), params.pixel_size_um, SIDE_PX)


def held_out_scene(folder: Path, version: DataSetVersion, number: int) -> Scene:
    """Copy images of the test split in turn; every instrument starts with a different image.

    Args:
        folder: folder to make.
        version: the data set version.
        number: number of the instrument, from 1.
    """
    entries = version.split("test")
    shift = (number - 1) * len(entries) // 3
    files = [to_path(e.image.uri, version.root) for e in entries[shift:] + entries[:shift]]
    shutil.rmtree(folder, ignore_errors=True)
    make_dir(folder / "images")
    rows = io.StringIO(newline="")
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["file", "well", "field", "time_s"])
    places = min(len(files), 4)
    for n in range(FRAMES):
        source = files[n % len(files)]
        name = f"t{n:03d}-{source.stem}{source.suffix}"
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / "images" / name)
        table.writerow([name, f"{'ABCD'[n % places]}1", 1, (n // places) * 1800])
    write_atomic(folder / "index.csv", rows.getvalue().encode())
    first = entries[0]
    return Scene(folder, FRAMES, first.channels, first.pixel_size_um, min(first.height, first.width))
