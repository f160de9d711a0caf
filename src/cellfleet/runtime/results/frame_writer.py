"""The files of one frame: mask, outlines, overlay, and the row that says that the frame is done."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from cellfleet.bundle.spec import ModelSpec
from cellfleet.canonical import sha256_file
from cellfleet.data.images.frame import Frame
from cellfleet.ports import write_atomic
from cellfleet.ports.disk import storage_error
from cellfleet.runtime.inputs import InputIdentity, LoadedFrame
from cellfleet.runtime.maps import select_channels
from cellfleet.runtime.results.contours import contours_geojson
from cellfleet.runtime.results.mask_file import write_mask
from cellfleet.runtime.results.overlay import overlay_png
from cellfleet.runtime.results.run_folder import Row, RunFolder
from cellfleet.runtime.segmenter import Origin, Segmentation, Table

MASK, CONTOURS, OVERLAY = "mask", "contours", "overlay"
_PLACES = {MASK: ("masks", ".tif"), CONTOURS: ("contours", ".geojson"), OVERLAY: ("overlays", ".png")}


class FrameWriter:
    """Writes what was found in a frame to the folder of its run.

    Args:
        folder: where to.
        origin: which model, engine and settings made it.
        contours, overlays: write these files, too.
    """

    def __init__(self, folder: RunFolder, origin: Origin, contours: bool = True, overlays: bool = True) -> None:
        self._folder = folder
        self._origin = origin
        self.kinds = (MASK, *([CONTOURS] if contours else []), *([OVERLAY] if overlays else []))

    def is_done(self, identity: InputIdentity) -> bool:
        """All files that would be written are there already."""
        return self._folder.is_done(identity, self.kinds)

    def write(self, loaded: LoadedFrame, result: Segmentation, spec: ModelSpec) -> Row:
        """Write the files and then the row of a frame.

        Returns:
            The row.

        Raises:
            StorageError: the disk refuses; the frame then does not count as done.
        """
        name, revision = self._folder.claim(loaded.name, loaded.identity)
        files = {k: f"{_PLACES[k][0]}/{name}{_PLACES[k][1]}" for k in self.kinds}
        facts = self._facts(name, loaded, result)
        path = self._folder.path
        write_mask(path / files[MASK], result.labels, facts, result.pixel_size_um)
        if CONTOURS in files:
            write_atomic(path / files[CONTOURS], contours_geojson(result.labels, result.table, facts))
        if OVERLAY in files:
            plane = select_channels(spec, loaded.frame)[0]
            write_atomic(path / files[OVERLAY], overlay_png(plane, result.labels))
        row: Row = {
            "frame": name,
            "revision": revision,
            "identity": asdict(loaded.identity),
            **_frame_facts(loaded.frame),
            "pixel_size_um": result.pixel_size_um,
            "count": result.count,
            "confluence_percent": result.confluence_percent,
            "per_mm2": result.per_mm2,
            "flags": [asdict(flag) for flag in result.flags],
            "features": result.features,
            "timings_ms": result.timings_ms,
            "run_digest": result.run_digest,
            "files": files,
            "mask_sha256": self._digest(files[MASK]),
            "columns": list(result.table),
            "objects": plain_columns(result.table),
        }
        self._folder.put(row)
        return row

    def _facts(self, name: str, loaded: LoadedFrame, result: Segmentation) -> dict[str, Any]:
        origin = self._origin
        return {
            "run_digest": origin.run_digest,
            "model": origin.model,
            "model_version": origin.model_version,
            "bundle_sha256": origin.model_sha256,
            "variant": origin.variant,
            "engine": origin.engine,
            "engine_version": origin.engine_version,
            "settings": origin.settings,
            "frame": name,
            "source": PurePath(loaded.identity.source).name,
            "source_sha256": loaded.identity.sha256,
            "frame_index": loaded.identity.index,
            "time_s": time_of(loaded.frame),
            "pixel_size_um": result.pixel_size_um,
            "count": result.count,
        }

    def _digest(self, file: str) -> str:
        path = self._folder.path / file
        try:
            return sha256_file(path)
        except OSError as e:
            raise storage_error("read", path, e) from e


def time_of(frame: Frame) -> float | None:
    """The frame's time in seconds, when its metadata give it as a number."""
    try:
        value = float(frame.metadata.get("time_s", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def plain_columns(table: Table) -> dict[str, list[Any]]:
    """An object table as plain JSON data; what is not a number becomes None."""
    columns: dict[str, list[Any]] = {}
    for name, values in table.items():
        items = values.tolist()
        columns[name] = [None if isinstance(x, float) and not math.isfinite(x) else x for x in items]
    return columns


def _frame_facts(frame: Frame) -> dict[str, Any]:
    own = ("time_s", "frame_index")
    return {
        "time_s": time_of(frame),
        "metadata": {k: str(v) for k, v in frame.metadata.items() if k not in own},
        "channels": list(frame.channels),
        "height": frame.height,
        "width": frame.width,
    }
