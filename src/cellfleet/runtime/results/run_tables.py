"""frames.csv and objects.csv of a run, made from its rows: one line per frame, one line per object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellfleet.runtime.results.run_folder import Row, RunFolder
from cellfleet.runtime.results.tables import Kind, have_parquet, table_writer

_TEXT: Kind = "text"
_INTEGERS = ("id", "area_px", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")
_FRAME_FIRST: dict[str, Kind] = {
    "frame": "text", "source": "text", "source_sha256": "text", "frame_index": "integer", "time_s": "number"
}  # fmt: skip
_FRAME_LAST: dict[str, Kind] = {
    "height_px": "integer", "width_px": "integer", "pixel_size_um": "number", "count": "integer",
    "confluence_percent": "number", "per_mm2": "number", "flags": "text", "flag_reasons": "text",
}  # fmt: skip
_FRAME_FILES: dict[str, Kind] = {
    "mask": "text", "mask_sha256": "text", "contours": "text", "overlay": "text", "run_digest": "text"
}  # fmt: skip
_FEATURE = "feature_"
_STAGES = ("prepare", "network", "resample", "objects", "measure", "watch", "total")
_OBJECT_FIRST: dict[str, Kind] = {"frame": "text", "source": "text", "frame_index": "integer", "time_s": "number"}
_OBJECT_LAST: dict[str, Kind] = {"pixel_size_um": "number", "run_digest": "text"}


def write_run_tables(folder: RunFolder) -> tuple[int, int, bool]:
    """Write frames and objects as CSV and, with pyarrow, as Parquet.

    Returns:
        Number of frames, number of objects, whether Parquet was written.

    Raises:
        StorageError: the disk refuses; the tables are then as they were before.
    """
    rows = folder.current()
    keys = sorted({key for row in rows for key in row["metadata"]})
    names = _metadata_names(keys, rows)
    _write_frames(folder, rows, names)
    return len(rows), _write_objects(folder, rows, names), have_parquet()


def _write_frames(folder: RunFolder, rows: Sequence[Row], names: dict[str, str]) -> None:
    timings: dict[str, Kind] = {f"{stage}_ms": "number" for stage in _STAGES}
    measured: dict[str, Kind] = {f"{_FEATURE}{name}": "number" for row in rows for name in row.get("features", {})}
    columns = {
        **_FRAME_FIRST,
        **dict.fromkeys(names.values(), _TEXT),
        **_FRAME_LAST,
        **measured,
        **timings,
        **_FRAME_FILES,
    }
    with table_writer(folder.path / "frames", columns) as table:
        for row in rows:
            facts = {
                **row,
                **_common(row, names),
                **row["files"],
                **{f"{stage}_ms": value for stage, value in row["timings_ms"].items()},
                **{f"{_FEATURE}{name}": value for name, value in row.get("features", {}).items()},
                "source_sha256": row["identity"]["sha256"],
                "height_px": row["height"],
                "width_px": row["width"],
                "flags": " ".join(flag["name"] for flag in row["flags"]),
                "flag_reasons": "; ".join(flag["reason"] for flag in row["flags"]),
            }
            table.append({name: [facts.get(name)] for name in columns}, 1)


def _write_objects(folder: RunFolder, rows: Sequence[Row], names: dict[str, str]) -> int:
    measured = list(dict.fromkeys(name for row in rows for name in row["columns"]))
    columns: dict[str, Kind] = {**_OBJECT_FIRST, **dict.fromkeys(names.values(), _TEXT)}
    columns |= {name: _kind(name) for name in measured} | _OBJECT_LAST
    total = 0
    with table_writer(folder.path / "objects", columns) as table:
        for row in rows:
            count = int(row["count"])
            facts = {**_common(row, names), "pixel_size_um": row["pixel_size_um"], "run_digest": row["run_digest"]}
            same = {name: [value] * count for name, value in facts.items()}
            table.append({**same, **folder.objects(row)}, count)
            total += count
    return total


def _common(row: Row, names: dict[str, str]) -> dict[str, Any]:
    identity = row["identity"]
    known = {names[key]: value for key, value in row["metadata"].items()}
    return {
        **known,
        "frame": row["frame"],
        "source": identity["source"],
        "frame_index": identity["index"],
        "time_s": row["time_s"],
    }


def _metadata_names(keys: Sequence[str], rows: Sequence[Row]) -> dict[str, str]:
    """Column name of each key of the metadata; one that is taken already gets ``meta_`` before it."""
    taken = {*_FRAME_FIRST, *_FRAME_LAST, *_FRAME_FILES, *_OBJECT_LAST}
    taken |= {f"{stage}_ms" for stage in _STAGES} | {name for row in rows for name in row["columns"]}
    return {key: f"meta_{key}" if key in taken else key for key in keys}


def _kind(name: str) -> Kind:
    if name in _INTEGERS:
        return "integer"
    return "text" if name == "class" else "number"
