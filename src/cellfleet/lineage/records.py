"""Records on disk: one file per record, named by its digest, never changed.

``<root>/<kind>/<sha256>.json`` holds the canonical JSON of the record, so a record whose content no longer matches its
name is refused. Kinds in use: ``data-set``, ``training``, ``optimization``, ``decision`` (signed envelopes), ``run``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellfleet.canonical import canonical_bytes, sha256_hex
from cellfleet.errors import LineageError
from cellfleet.ports import write_atomic

_KIND = re.compile(r"^[a-z][a-z-]{0,31}$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")


class RecordStore:
    """Content-addressed records below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, kind: str, record: Mapping[str, Any]) -> str:
        """Store a record (plain JSON data) and return its digest; storing it again changes nothing.

        Args:
            kind: ``data-set``, ``training``, ``optimization``, ``decision`` or ``run``.
            record: plain JSON data.

        Returns:
            The record's SHA-256, 64 hex digits, which is its name.

        Raises:
            StorageError: when the disk refuses.
        """
        data = canonical_bytes(dict(record))
        digest = sha256_hex(data)
        path = self._path(kind, digest)
        if not path.is_file():
            write_atomic(path, data)
        return digest

    def get(self, kind: str, digest: str) -> dict[str, Any]:
        """Read a record and check it against its name.

        Args:
            kind: as in ``put``.
            digest: SHA-256 of the record.

        Returns:
            The record.

        Raises:
            LineageError: absent, unreadable or changed.
        """
        path = self._path(kind, digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as e:
            raise LineageError(
                f"no {kind} record {digest[:12]} in {self.root}",
                hint="run the command in the project that made it, or name its folder with --set lineage.records=DIR",
            ) from e
        except OSError as e:
            raise LineageError(f"cannot read {path}: {e.strerror}", hint="check its permissions") from e
        if sha256_hex(data) != digest:
            raise LineageError(
                f"{path} was changed: its content does not match its name", hint="restore it from a backup"
            )
        record: dict[str, Any] = json.loads(data)
        return record

    def all(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """All records of a kind as (digest, record), in the order of their digests.

        Raises:
            LineageError: when one of them was changed.
        """
        folder = self._path(kind, "0" * 64).parent
        if not folder.is_dir():
            return
        for path in sorted(folder.glob("*.json")):
            if _DIGEST.match(path.stem):
                yield path.stem, self.get(kind, path.stem)

    def find(self, kind: str, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
        """Records of a kind whose top-level fields have the given values.

        Args:
            kind: as in ``put``.
            fields: top-level field -> value; all must be equal.

        Returns:
            Digest and record of each match, in the order of their digests.
        """
        return [(d, r) for d, r in self.all(kind) if all(r.get(k) == v for k, v in fields.items())]

    def _path(self, kind: str, digest: str) -> Path:
        if not _KIND.match(kind) or not _DIGEST.match(digest):
            raise LineageError(f"not a record: {kind}/{digest}", hint="a digest is 64 lower-case hex digits")
        return self.root / kind / f"{digest}.json"
