"""index.csv: what the user knows about the images (group, stratum, pixel size ...), one row per file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cellfleet.data.files import read_bytes, stem_of
from cellfleet.data.findings import Finding, error
from cellfleet.data.records import SplitName
from cellfleet.errors import ReadError

_SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test", "held-out": "test",
}  # fmt: skip
_PROVENANCE = {"licence": "licence", "license": "licence", "source_url": "source_url", "citation": "citation"}


@dataclass(frozen=True)
class Row:
    """What index.csv says about one file; None where it says nothing.

    Attributes:
        file: as written, ``/``-separated.
        group, stratum, split, pixel_size_um, channels: the columns of these names.
        metadata: every other column that is not empty.
        provenance: the columns licence, source_url and citation.
    """

    file: str
    group: str | None = None
    stratum: str | None = None
    split: SplitName | None = None
    pixel_size_um: float | None = None
    channels: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """A parsed index.csv: rows by image id (path below the images folder without suffix), and what is wrong with it."""

    rows: Mapping[str, Row] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def get(self, image_id: str) -> Row:
        """The row of an image; an empty one when there is none."""
        return self.rows.get(image_id, Row(""))


def read_index(path: Path) -> Index:
    """Read an index.csv (UTF-8, comma or semicolon); a faulty row becomes a finding.

    Columns: ``file`` (with or without suffix; needed), ``group``, ``stratum``, ``split``, ``pixel_size_um``,
    ``channels`` (separated by ``|`` or blanks), ``licence``, ``source_url``, ``citation``; others become metadata.

    Raises:
        ReadError: unreadable, not UTF-8, or without a column ``file``.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ReadError(f"{path}: not UTF-8: {e.reason} at byte {e.start}", hint="save it as CSV UTF-8") from e
    head = text.partition("\n")[0]
    delimiter = ";" if ";" in head and "," not in head else "\t" if "\t" in head and "," not in head else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [(n or "").strip() for n in reader.fieldnames or []]
        records = list(reader)
    except csv.Error as e:
        raise ReadError(f"{path}: line {reader.line_num}: {e}", hint="check the quotes in that line") from e
    lowered = [n.casefold() for n in names]
    if "file" not in lowered:
        raise ReadError(f"{path}: no column 'file' (found: {', '.join(names)})", hint="add it: one image name per row")
    if len(set(lowered)) != len(lowered):
        raise ReadError(f"{path}: two columns have the same name", hint="rename one of them")
    return _rows(records, dict(zip(reader.fieldnames or [], names, strict=True)), path)


def _rows(records: list[dict[str, str]], names: dict[str, str], path: Path) -> Index:
    rows: dict[str, Row] = {}
    findings: list[Finding] = []
    for number, record in enumerate(records, start=2):
        values = {names[k]: (v or "").strip() for k, v in record.items() if k in names and isinstance(v, str)}
        where = f"row {number}"
        if not any(values.values()):
            continue
        if None in record:
            findings.append(error("index", path.name, f"{where} has more cells than the header", "correct that row"))
        row, wrong = _row({k.casefold(): v for k, v in values.items()}, values)
        findings += [error("index", path.name, f"{where}: {w}", "correct that cell") for w in wrong]
        key = stem_of(row.file)
        if key and key in rows:
            findings.append(error("index", path.name, f"{where}: a second row for {row.file}", "remove one of them"))
        elif key:
            rows[key] = row
    return Index(rows, tuple(findings))


def _row(cells: Mapping[str, str], original: Mapping[str, str]) -> tuple[Row, list[str]]:
    wrong: list[str] = []
    file = cells.get("file", "").replace("\\", "/").removeprefix("./").removeprefix("images/")
    if not file:
        wrong.append("no file name")
    word = cells.get("split", "").casefold()
    if word and word not in _SPLIT_WORDS:
        wrong.append(f"{file}: unknown split {word!r}; known splits: train, validation, test")
    size = _number(cells.get("pixel_size_um", ""))
    if size is not None and not (math.isfinite(size) and size > 0):
        wrong.append(f"{file}: pixel_size_um {cells['pixel_size_um']!r} is not a positive number")
        size = None
    own = {"file", "group", "stratum", "split", "pixel_size_um", "channels", *_PROVENANCE}
    row = Row(
        file,
        cells.get("group") or None,
        cells.get("stratum") or None,
        _SPLIT_WORDS.get(word),
        size,
        tuple(cells.get("channels", "").replace("|", " ").replace(";", " ").split()) or None,
        {k: v for k, v in original.items() if v and k and k.casefold() not in own},
        {_PROVENANCE[k]: v for k, v in cells.items() if v and k in _PROVENANCE},
    )
    return row, wrong


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan
