"""Long tidy tables, as CSV and, where pyarrow is installed, the same as Parquet."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cellfleet.ports import atomic_path

Kind = Literal["text", "integer", "number"]
_BATCH_ROWS = 50_000


def have_parquet() -> bool:
    """The library that writes Parquet is installed (extra ``tables``)."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


class TableWriter:
    """Takes columns piece by piece; holds at most one batch of rows in memory."""

    def __init__(self, csv_file: Any, parquet: _Parquet | None, columns: Mapping[str, Kind]) -> None:
        self._columns = tuple(columns)
        self._csv = csv.writer(csv_file, lineterminator="\n")
        self._csv.writerow(self._columns)
        self._parquet = parquet

    def append(self, piece: Mapping[str, Sequence[Any]], rows: int) -> None:
        """Add ``rows`` rows; a column that the piece lacks is empty, None is an empty cell."""
        empty: list[Any] = [None] * rows
        columns = [piece.get(name, empty) for name in self._columns]
        self._csv.writerows(zip(*columns, strict=True))
        if self._parquet is not None:
            self._parquet.append(columns)


@contextlib.contextmanager
def table_writer(stem: Path, columns: Mapping[str, Kind]) -> Iterator[TableWriter]:
    """Write ``<stem>.csv`` and ``<stem>.parquet``; each appears whole when the block ends well.

    Args:
        stem: path without suffix.
        columns: name -> kind, in order.

    Raises:
        StorageError: the disk refuses.
    """
    with contextlib.ExitStack() as stack:
        csv_part = stack.enter_context(atomic_path(stem.with_name(stem.name + ".csv")))
        parquet: _Parquet | None = None
        if have_parquet():
            parquet_part = stack.enter_context(atomic_path(stem.with_name(stem.name + ".parquet")))
            parquet = stack.enter_context(contextlib.closing(_Parquet(parquet_part, columns)))
        csv_file = stack.enter_context(csv_part.open("w", encoding="utf-8", newline=""))
        yield TableWriter(csv_file, parquet, columns)


class _Parquet:
    def __init__(self, path: Path, columns: Mapping[str, Kind]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = pq.ParquetWriter(str(path), self._schema, compression="zstd")
        self._pending: list[list[Any]] = [[] for _ in columns]

    def append(self, columns: Sequence[Sequence[Any]]) -> None:
        for pending, column in zip(self._pending, columns, strict=True):
            pending.extend(column)
        if len(self._pending[0]) >= _BATCH_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        arrays = [pa.array(p, f.type) for p, f in zip(self._pending, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._pending = [[] for _ in self._pending]
