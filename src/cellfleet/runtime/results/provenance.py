"""What a mask or a row of a table says of its origin, and whether it still is what was written."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tifffile

from cellfleet.canonical import sha256_file
from cellfleet.errors import LineageError, ReadError, StorageError
from cellfleet.lineage import run_digest
from cellfleet.runtime.results.mask_file import labels_digest, read_mask_metadata
from cellfleet.runtime.results.run_folder import RUN, read_runs

_MASK_FACTS = ("frame", "source", "source_sha256", "frame_index", "time_s", "pixel_size_um", "count")
_ROW_FACTS = ("frame", "source", "frame_index", "time_s", "id", "area_px", "count")
_TABLES = ("objects", "frames")


@dataclass(frozen=True)
class Provenance:
    """Where a mask, a row or a run comes from.

    Attributes:
        facts: of the mask or row itself, in reading order; empty for a run.
        run_digest: of the run.
        run: bundle_sha256, model, model_version, variant, engine, engine_version, settings; empty when unknown.
        model_path: where the bundle was when it ran; None when unknown.
        problem: why it is not to be relied on; empty when all is well.
    """

    facts: Mapping[str, Any]
    run_digest: str
    run: Mapping[str, Any] = field(default_factory=dict)
    model_path: Path | None = None
    problem: str = ""


def of_mask(path: Path) -> Provenance:
    """Read the origin of a mask and compare its labels with the digest that was stored with them.

    Raises:
        ReadError: no mask of ``cellfleet segment``.
    """
    said = read_mask_metadata(path)
    try:
        changed = labels_digest(tifffile.imread(path)) != said.get("labels_sha256")
        digest = sha256_file(path)
    except Exception as e:  # tifffile and its codecs raise whatever they meet in a damaged file
        raise ReadError(f"{path}: truncated or damaged: {e}", hint="restore it, or segment the frame again") from e
    digest_of_run = str(said.get("run_digest", ""))
    problem = "the labels were changed since the mask was written" if changed else check_run(said, digest_of_run)
    facts = {"file": str(path), "sha256": digest, **{k: said.get(k) for k in _MASK_FACTS}}
    folder = _run_folder(path, digest_of_run)
    model_path = _model_path(_run_file(folder)) if folder is not None else None
    return Provenance(
        facts | _superseded(folder, digest_of_run, said.get("frame")), digest_of_run, said, model_path, problem
    )


def of_row(table: Path, number: int) -> Provenance:
    """Read the origin of a row of objects or frames, CSV or Parquet.

    Args:
        table: the file.
        number: of the row; the first one below the header is 1.

    Raises:
        ReadError: no such file or row, or no table of ``cellfleet segment``.
    """
    row = _parquet_row(table, number) if table.suffix.lower() == ".parquet" else _csv_row(table, number)
    digest = str(row.get("run_digest") or "")
    if not digest:
        raise ReadError(f"{table}: its rows have no run digest", hint="name a table from `cellfleet segment`")
    facts = {"file": f"{table}#{number}", **{k: row[k] for k in _ROW_FACTS if row.get(k) not in (None, "")}}
    folder = _run_folder(table, digest)
    run = _run_file(folder) if folder is not None else {}
    return Provenance(
        facts | _superseded(folder, digest, row.get("frame")), digest, run, _model_path(run), check_run(run, digest)
    )


def check_run(run: Mapping[str, Any], digest: str) -> str:
    """Compare a run digest with the facts that it is the digest of; a sentence when they differ."""
    if not run:
        return ""
    try:
        right = run_digest(
            run["bundle_sha256"], run["variant"], run["engine"], run["engine_version"], dict(run["settings"])
        )
    except (KeyError, TypeError, ValueError):
        return "the facts of the run are incomplete"
    return "" if right == digest else "the run digest does not match the bundle, variant, engine and settings"


def _run_folder(path: Path, digest: str) -> Path | None:
    """The folder of the run that a result lies in, when it still lies there."""
    for folder in path.absolute().parents:
        if (folder / RUN).is_file():
            return folder if _run_file(folder).get("run_digest") == digest else None
    return None


def _run_file(folder: Path) -> dict[str, Any]:
    file = folder / RUN
    try:
        facts = dict(json.loads(file.read_bytes()))
    except OSError as e:
        raise StorageError(f"cannot read {file}: {e.strerror}", hint="check its permissions") from e
    except (ValueError, TypeError) as e:
        raise LineageError(f"{file} is damaged: {e}", hint="restore it, or segment again") from e
    facts["bundle_sha256"] = facts.get("model_sha256", "")
    return facts


def _model_path(run: Mapping[str, Any]) -> Path | None:
    return Path(str(run["model_path"])) if run.get("model_path") else None


def _superseded(folder: Path | None, digest: str, frame: Any) -> dict[str, Any]:
    """What took the place of this: another run, or in this run a newer content of the same file."""
    if folder is None:
        return {}
    found: dict[str, Any] = {}
    if frame in _run_file(folder).get("superseded_frames", []):
        found["superseded"] = "the source file was changed and segmented again in this run"
    runs = read_runs(folder.parent)
    after = [line["run_digest"] for line in runs if line.get("supersedes") == digest]
    if after and runs[-1].get("run_digest") != digest:
        found["superseded_by"] = after[-1]
    return found


def _csv_row(table: Path, number: int) -> dict[str, Any]:
    try:
        with table.open(encoding="utf-8", newline="") as f:
            for at, row in enumerate(csv.DictReader(f), start=1):
                if at == number:
                    return row
    except OSError as e:
        raise ReadError(f"{table}: {e.strerror or e}", hint="check the path and its permissions") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise ReadError(f"{table}: no CSV table: {e}", hint="name objects.csv from `cellfleet segment`") from e
    raise _no_row(table, number)


def _parquet_row(table: Path, number: int) -> dict[str, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise ReadError(
            f"{table}: Parquet needs a library that is not installed", hint="pip install 'cellfleet[tables]'"
        ) from e
    try:
        file = pq.ParquetFile(table)
        left = number - 1
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if 0 <= left < rows:
                return dict(file.read_row_group(group).slice(left, 1).to_pylist()[0])
            left -= rows
    except (OSError, pa.ArrowException) as e:
        raise ReadError(f"{table}: no Parquet table: {e}", hint="check the path and the file") from e
    raise _no_row(table, number)


def _no_row(table: Path, number: int) -> ReadError:
    return ReadError(f"{table}: there is no row {number}", hint="the first row below the header is 1")
