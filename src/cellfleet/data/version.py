"""Data set versions: a manifest whose digest is the version; files are referred to and checked, never copied."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cellfleet.canonical import digest_of
from cellfleet.data.annotations.coco import CocoFile
from cellfleet.data.images.frame import Frame
from cellfleet.data.images.reader import Raw, decode_image, decode_mask, load_raw
from cellfleet.data.locate import to_path
from cellfleet.data.records import FORMAT_VERSION, SPLITS, Entry, Manifest, SplitName, Stored
from cellfleet.errors import DataError, ReadError
from cellfleet.ports import write_atomic

_AGAIN = "put the old file back, or run `cellfleet data freeze` again for a new version"
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class DataSetVersion:
    """A frozen data set.

    Attributes:
        digest: SHA-256 of the canonical manifest: the version. The same files give the same digest in every folder.
        root: where relative URIs start; not part of the digest.
        entries: sorted by id.
    """

    digest: str
    root: Path
    entries: tuple[Entry, ...]
    _coco: dict[str, CocoFile] = field(default_factory=dict, repr=False)

    @classmethod
    def make(cls, entries: Iterable[Entry], root: Path) -> DataSetVersion:
        """A version of these entries.

        Args:
            entries: at least one; ids are unique.
            root: folder to which relative URIs of entries refer.

        Returns:
            The version; its digest depends on the entries alone.

        Raises:
            DataError: no entry, or two of the same id.
        """
        ordered = tuple(sorted(entries, key=lambda e: e.id))
        if not ordered:
            raise DataError("a data set version needs at least one image", hint="check data.source in cellfleet.toml")
        for a, b in zip(ordered, ordered[1:], strict=False):
            if a.id == b.id:
                raise DataError(f"two entries have the id {a.id!r}", hint="rename one of the files")
        return cls(_digest(Manifest(entries=ordered)), Path(os.path.abspath(root)), ordered)

    @classmethod
    def load(cls, path: str | Path, *, root: str | Path | None = None) -> DataSetVersion:
        """Read a version; ``root`` says where the files are when they have moved.

        Args:
            path: ``dataset.json``.
            root: folder of the files when they have moved; None: as the file says.

        Returns:
            The version, its digest checked.

        Raises:
            DataError: no such file, not a data set version, an unknown format version, or a manifest that was changed
                by hand (its digest does not fit).
        """
        file = Path(path)
        stored = _parse(_read_json(file), file)
        if _digest(stored.manifest) != stored.digest:
            raise DataError(f"{file}: the manifest does not fit its digest, it was changed", hint=_AGAIN)
        version = cls.make(stored.manifest.entries, Path(root) if root is not None else file.parent / stored.root)
        if version.digest != stored.digest:
            raise DataError(f"{file}: the entries are not sorted by id", hint=_AGAIN)
        return version

    def save(self, path: str | Path) -> None:
        """Write the version atomically; a root at or below the file's folder is written as a relative path.

        Raises:
            StorageError: when the disk refuses.
        """
        file = Path(os.path.abspath(path))
        below = self.root.is_relative_to(file.parent)
        root = self.root.relative_to(file.parent).as_posix() if below else self.root.as_posix()
        stored = Stored(digest=self.digest, root=root, manifest=Manifest(entries=self.entries))
        text = json.dumps(stored.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        write_atomic(file, (text + "\n").encode())

    def manifest_dict(self) -> dict[str, Any]:
        """The manifest as plain JSON data: its canonical digest is :attr:`digest`."""
        return Manifest(entries=self.entries).model_dump(mode="json")

    def split(self, name: SplitName) -> list[Entry]:
        """The entries of a split, sorted by id; empty when it has none.

        Raises:
            DataError: no such split.
        """
        if name not in SPLITS:
            raise DataError(f"there is no split {name!r}", hint=f"the splits are {', '.join(SPLITS)}")
        return [e for e in self.entries if e.split == name]

    def load_frame(self, entry: Entry) -> Frame:
        """Read an entry's image; channels, pixel size and metadata are those of the entry.

        Raises:
            DataError: the file changed since it was frozen.
            ReadError: it cannot be read.
        """
        path = to_path(entry.image.uri, self.root)
        raw = _checked(path, entry.image.sha256)
        frame = decode_image(raw, str(path), channels=entry.channels)
        return Frame(frame.pixels, entry.channels, entry.pixel_size_um, dict(entry.metadata), str(path))

    def load_mask(self, entry: Entry) -> NDArray[np.uint32]:
        """Read an entry's mask: [H, W] uint32 labels, 0 is background.

        Raises:
            DataError: the file changed since it was frozen.
            ReadError: it cannot be read.
        """
        path, ref = to_path(entry.mask.uri, self.root), entry.mask
        if ref.kind == "labels":
            labels = decode_mask(_checked(path, ref.sha256), str(path))
        else:
            labels = self._annotations(path, ref.sha256).rasterise(ref.image_id).labels
        if labels.shape != (entry.height, entry.width) or pixels_digest(labels) != ref.pixels_sha256:
            raise DataError(f"{path}: the mask of {entry.id!r} changed since it was frozen", hint=_AGAIN)
        return labels

    def _annotations(self, path: Path, sha256: str) -> CocoFile:
        if sha256 not in self._coco:
            raw = _checked(path, sha256)
            assert isinstance(raw.data, bytes)
            self._coco[sha256] = CocoFile.parse(raw.data, path)
        return self._coco[sha256]


def pixels_digest(pixels: NDArray[Any]) -> str:
    """SHA-256 of shape and values, the same for every dtype and file format that hold the same numbers."""
    width = "<u2" if pixels.size and int(pixels.max()) <= 0xFFFF else "<u4"
    digest = hashlib.sha256(f"{width}{list(pixels.shape)}".encode())
    flat = pixels.reshape(-1)
    for start in range(0, flat.size, _CHUNK):  # in parts, so that a huge image is not there twice
        digest.update(np.ascontiguousarray(flat[start : start + _CHUNK], dtype=width).data)
    return digest.hexdigest()


def _digest(manifest: Manifest) -> str:
    return digest_of(manifest.model_dump(mode="json"))


def _checked(path: Path, sha256: str) -> Raw:
    raw = load_raw(path)
    if raw.sha256 != sha256:
        raise DataError(f"{path}: changed since it was frozen", hint=_AGAIN)
    return raw


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError as e:
        raise DataError(f"{file}: no such data set version", hint="make one with `cellfleet data freeze`") from e
    except OSError as e:
        raise DataError(f"{file}: {e.strerror or e}", hint="name the JSON file of a data set version") from e
    except (ValueError, RecursionError) as e:
        raise ReadError(f"{file}: not valid JSON: {e}", hint="make it again with `cellfleet data freeze`") from e
    if not isinstance(value, dict) or not isinstance(value.get("manifest"), dict):
        raise DataError(f"{file}: not a data set version", hint="make one with `cellfleet data freeze`")
    return value


def _parse(value: dict[str, Any], file: Path) -> Stored:
    found = value["manifest"].get("format_version")
    if found != FORMAT_VERSION:
        raise DataError(
            f"{file}: format version {found!r} of a data set version, this program knows {FORMAT_VERSION}",
            hint="use a newer cellfleet, or freeze the data set again",
        )
    try:
        return Stored.model_validate_json(json.dumps(value))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file}: {where}: {first['msg']}", hint="make it again with `cellfleet data freeze`") from e
