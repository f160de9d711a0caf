"""Synthetic scenes on the disk, in the layout that ``cellfleet data`` reads.

::

    images/A01_t000.tif     uint8 or uint16
    masks/A01_t000.tif      uint16; a cell keeps its number within a well
    index.csv               group (the well), stratum (the kind of cells), pixel size, well, field, time ...
    cells.csv               one row per cell and frame: kind, mother, state, place, area
    tracks.csv              one row per cell: birth, end, fate
    scene.json              all parameters and seeds
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellfleet.data.synthetic.params import SceneParams
from cellfleet.data.synthetic.population import End
from cellfleet.data.synthetic.scene import SyntheticFrame, Track, simulate
from cellfleet.errors import DataError
from cellfleet.ports import ProgressFn, make_dir, silent, write_atomic
from cellfleet.ports.disk import move_into_place, storage_error
from cellfleet.ports.temporary_files import part_path, sweep

LICENCE = "CC0-1.0"
_FIELD = "f01"
_ROWS = "ABCDEFGHIJKLMNOP"
_MOST_LABELS = 65535


@dataclass(frozen=True)
class Well:
    """One well: its name, stratum, seed and scene."""

    well: str
    stratum: str
    seed: int
    params: SceneParams


def write_data_set(
    out_dir: Path,
    params: SceneParams,
    seed: int,
    progress: ProgressFn = silent,
    *,
    sequences: int = 6,
    frames: int = 3,
    stride: int = 24,
) -> None:
    """Write a data set to train on: ``sequences`` wells of each kind of cell, a few frames of each, far apart in time.

    Args:
        out_dir: folder to make; it may exist when it is empty. It appears when it is complete.
        params: the scene; every well shows one of its kinds.
        seed: of everything; each well has a seed of its own that is drawn from it.
        progress: called after every frame.
        sequences: wells per kind; three or more, so that every split holds every kind.
        frames: frames per well.
        stride: frame intervals between two of them.

    Raises:
        DataError: a folder that is not empty, or numbers out of bounds.
        StorageError: the disk refuses.
    """
    if not 1 <= sequences <= 99:
        raise DataError(f"synthetic data set: {sequences} wells per kind; 1 to 99 are possible", hint="choose fewer")
    plan = [
        Well(f"{_ROWS[row]}{n + 1:02d}", kind.name, _seed_of(seed, row, n), params.changed(kinds=(kind,)))
        for row, kind in enumerate(params.kinds)
        for n in range(sequences)
    ]
    _write(out_dir, plan, params, {"seed": seed, "frames": frames, "stride": stride}, progress)


def write_time_lapse(
    out_dir: Path,
    params: SceneParams,
    seed: int,
    progress: ProgressFn = silent,
    *,
    frames: int = 60,
    stride: int = 1,
    well: str = "A01",
) -> None:
    """Write one well with all kinds of cells together, for replay; the layout is that of :func:`write_data_set`.

    Args:
        out_dir, params, seed, progress: as there.
        frames: number of frames.
        stride: frame intervals between two frames.
        well: name of the well.

    Raises:
        DataError, StorageError: as there.
    """
    one = Well(well, "+".join(k.name for k in params.kinds), seed, params)
    _write(out_dir, [one], params, {"seed": seed, "frames": frames, "stride": stride}, progress)


def _seed_of(seed: int, row: int, n: int) -> int:
    if seed < 0:
        raise DataError(f"synthetic scene: seed must be at least 0, not {seed}", hint="correct that value")
    return int(np.random.SeedSequence([seed, row, n]).generate_state(1)[0])


def _write(out_dir: Path, plan: Sequence[Well], params: SceneParams, run: dict[str, int], progress: ProgressFn) -> None:
    tables: dict[str, list[dict[str, Any]]] = {"index": [], "cells": [], "tracks": []}
    total = len(plan) * run["frames"]
    with _new_folder(out_dir) as folder:
        for sequence in plan:
            lives = _Lives(sequence.well)
            film = simulate(sequence.params, run["frames"], sequence.seed, stride=run["stride"])
            for number, frame in enumerate(film):
                name = f"{sequence.well}_t{number:03d}.tif"
                _write_frame(folder, name, frame, sequence.params.pixel_size_um)
                tables["index"].append(_index_row(name, sequence, number, frame))
                tables["cells"] += [{"file": name, **asdict(t)} for t in frame.tracks]
                lives.add(frame, number)
                progress(len(tables["index"]), total, name)
            tables["tracks"] += lives.rows()
        for table, rows in tables.items():
            write_atomic(folder / f"{table}.csv", _csv(rows))
        wells = [{"well": s.well, "stratum": s.stratum, "seed": s.seed} for s in plan]
        scene = {"format": 1, **run, "sequences": wells, "params": params.model_dump(mode="json")}
        write_atomic(folder / "scene.json", (json.dumps(scene, indent=2) + "\n").encode())


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that becomes it when the block ends well, and vanishes when it does not."""
    target = target.absolute()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(f"{target} exists and is not an empty folder", hint="name a new folder, or empty this one")
        sweep(target.parent)
        part = make_dir(part_path(target))
    except OSError as e:
        raise storage_error("look into", target, e) from e
    try:
        yield part
        if target.exists():
            target.rmdir()
        move_into_place(part, target)
    except OSError as e:
        raise storage_error("write", target, e) from e
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_frame(folder: Path, name: str, frame: SyntheticFrame, pixel_size_um: float) -> None:
    if int(frame.labels.max()) > _MOST_LABELS:
        raise DataError(
            f"{name}: more than {_MOST_LABELS} cells since the first frame do not fit into a uint16 mask",
            hint="make fewer frames or fewer cells",
        )
    write_atomic(folder / "images" / name, _tiff(frame.pixels, pixel_size_um))
    write_atomic(folder / "masks" / name, _tiff(frame.labels.astype(np.uint16), pixel_size_um))


def _tiff(pixels: NDArray[Any], pixel_size_um: float) -> bytes:
    """Uncompressed, so that the bytes are the same on every machine."""
    file = io.BytesIO()
    per_cm = 1e4 / pixel_size_um
    tifffile.imwrite(
        file,
        pixels,
        photometric="minisblack",
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
        software=False,
    )
    return file.getvalue()


def _index_row(name: str, sequence: Well, number: int, frame: SyntheticFrame) -> dict[str, Any]:
    return {
        "file": name,
        "group": sequence.well,
        "stratum": sequence.stratum,
        "pixel_size_um": sequence.params.pixel_size_um,
        "channels": "phase",
        "well": sequence.well,
        "field": _FIELD,
        "frame": number,
        "time_s": frame.time_s,
        "cells": len(frame.tracks),
        "seed": sequence.seed,
        "licence": LICENCE,
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class _Lives:
    """Collects the rows of tracks.csv of one well."""

    def __init__(self, well: str) -> None:
        self._well = well
        self._seen: dict[int, list[int]] = {}
        self._tracks: dict[int, Track] = {}
        self._ends: dict[int, End] = {}

    def add(self, frame: SyntheticFrame, number: int) -> None:
        """Note which cells are in the frame and which ended since the frame before."""
        for track in frame.tracks:
            self._seen.setdefault(track.id, []).append(number)
            self._tracks[track.id] = track
        self._ends.update({end.id: end for end in frame.ended})

    def rows(self) -> list[dict[str, Any]]:
        """One row per cell that was seen or whose life ended, by number."""
        return [self._row(i) for i in sorted(self._tracks.keys() | self._ends.keys())]

    def _row(self, number: int) -> dict[str, Any]:
        end = self._ends.get(number)
        life = end if end is not None else self._tracks[number]
        seen = self._seen.get(number, [])
        return {
            "well": self._well,
            "id": number,
            "kind": life.kind,
            "parent": life.parent,
            "born_s": life.born_s,
            "ended_s": "" if end is None else end.ended_s,
            "fate": "" if end is None else end.fate,
            "first_frame": seen[0] if seen else "",
            "last_frame": seen[-1] if seen else "",
        }
