"""Where results lie, and the rule by which a re-run supersedes and never overwrites.

::

    OUT/runs.jsonl                 one line whenever another run becomes the current one; lines are only added
    OUT/<run digest, 12>/          all results of one run digest
        run.json                   what ran, on what, why, when; frames that failed
        masks/ contours/ overlays/ <frame>.tif  <frame>.geojson  <frame>.png
        rows/<frame>.json          facts and objects of one frame; written last, so it says that the frame is done
        frames.csv objects.csv     the long tables (and .parquet), made from the rows

The same bundle, variant, engine and settings have the same run digest, so a second run goes on in the same folder and
passes over frames that are done: same file, same SHA-256, same channels and pixel size. Another run digest gets a folder
of its own, and its line in runs.jsonl names the run that it supersedes. A file that changed since is another frame: it
gets a name of its own (``x-2``), the rows of the old one stay and are left out of the tables.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cellfleet.canonical import canonical_bytes
from cellfleet.data.files import natural_key
from cellfleet.errors import StorageError
from cellfleet.ports import make_dir, write_atomic
from cellfleet.ports.disk import storage_error
from cellfleet.runtime.inputs import InputIdentity

RUNS = "runs.jsonl"
RUN = "run.json"
ROWS = "rows"
ROW_FORMAT = 1

Row = dict[str, Any]


class RunFolder:
    """The results of one run digest.

    Attributes:
        path: the folder.
    """

    def __init__(self, out: Path, run_digest: str) -> None:
        """Open the folder of a run digest below ``out``, and read what is done.

        Raises:
            StorageError: the folder cannot be made or read, or it belongs to another run.
        """
        self.path = make_dir(out / run_digest[:12])
        self._digest = run_digest
        self._names: set[str] = set()
        self._newest: dict[tuple[str, int | None], Row] = {}
        self._superseded: set[str] = set()
        for file in sorted((self.path / ROWS).rglob("*.json")):
            if not file.name.startswith("."):
                self._keep(_read_row(file))

    def current(self) -> list[Row]:
        """Rows of all frames, without their objects, the newest of every frame, in natural order of their names."""
        return sorted(self._newest.values(), key=lambda row: natural_key(row["frame"]))

    def superseded(self) -> list[str]:
        """Names of frames whose file changed since."""
        return sorted(self._superseded, key=natural_key)

    def is_done(self, identity: InputIdentity, kinds: tuple[str, ...]) -> bool:
        """The newest row of this frame is of this very identity, and its files of these kinds are there."""
        row = self._find(identity)
        if row is None or row["identity"] != asdict(identity):
            return False
        return all(kind in row["files"] and (self.path / row["files"][kind]).is_file() for kind in kinds)

    def claim(self, name: str, identity: InputIdentity) -> tuple[str, int]:
        """The name and revision for the results of a frame: its own, or with ``-2``, ``-3`` when that is taken."""
        row = self._find(identity)
        if row is not None and row["identity"] == asdict(identity):
            return str(row["frame"]), int(row["revision"])
        free, number = name, 1
        while free.casefold() in self._names:
            number += 1
            free = f"{name}-{number}"
        self._names.add(free.casefold())
        return free, 1 if row is None else row["revision"] + 1

    def put(self, row: Row) -> None:
        """Write the row of a frame whose files are there already: from now on it is done.

        Raises:
            StorageError: the disk refuses.
        """
        write_atomic(self.path / ROWS / f"{row['frame']}.json", canonical_bytes({**row, "format_version": ROW_FORMAT}))
        self._keep(row)

    def objects(self, row: Row) -> dict[str, list[Any]]:
        """The object columns of a row."""
        found: dict[str, list[Any]] = _read_row(self.path / ROWS / f"{row['frame']}.json")["objects"]
        return found

    def write_run(self, facts: dict[str, Any]) -> None:
        """Write run.json."""
        text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=True)
        write_atomic(self.path / RUN, text.encode() + b"\n")

    def register(self, when: str) -> str | None:
        """Add a line to runs.jsonl unless this run is the current one already.

        Returns:
            The run digest that was current before; None when there was none or it was this one.

        Raises:
            StorageError: the disk refuses.
        """
        file = self.path.parent / RUNS
        lines = read_runs(file.parent)
        before = str(lines[-1]["run_digest"]) if lines else None
        if before == self._digest:
            return None
        line = {"run_digest": self._digest, "folder": self.path.name, "supersedes": before, "when": when}
        data = b"".join(canonical_bytes(x) + b"\n" for x in [*lines, line])
        write_atomic(file, data)
        return before

    def _find(self, identity: InputIdentity) -> Row | None:
        return self._newest.get((identity.source, identity.index))

    def _keep(self, row: Row) -> None:
        light = {**row, "objects": None}
        key = (row["identity"]["source"], row["identity"]["index"])
        other = self._newest.get(key)
        self._names.add(row["frame"].casefold())
        if other is not None and other["revision"] > row["revision"]:
            self._superseded.add(row["frame"])
            return
        if other is not None and other["frame"] != row["frame"]:
            self._superseded.add(other["frame"])
        self._newest[key] = light


def read_runs(out: Path) -> list[dict[str, Any]]:
    """The lines of runs.jsonl, oldest first; the last one names the current run.

    Raises:
        StorageError: it cannot be read.
    """
    file = out / RUNS
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except OSError as e:
        raise storage_error("read", file, e) from e
    try:
        return [dict(json.loads(line)) for line in lines if line]
    except (ValueError, TypeError) as e:
        raise StorageError(f"{file} is damaged: {e}", hint="restore it, or name another folder with --out") from e


def _read_row(file: Path) -> Row:
    try:
        row = json.loads(file.read_bytes())
        if (
            row["format_version"] == ROW_FORMAT
            and row["identity"]
            and row["frame"]
            and row["revision"]
            and row["columns"]
        ):
            return dict(row)
        reason = f"format version {row['format_version']!r}"
    except OSError as e:
        raise storage_error("read", file, e) from e
    except (ValueError, KeyError, TypeError) as e:
        reason = f"{type(e).__name__}: {e}"
    raise StorageError(f"{file} is damaged: {reason}", hint="remove it; the frame is then segmented again")
