"""Open a source: a folder, a COCO annotation file, or a data set version."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cellfleet.canonical import sha256_hex
from cellfleet.config.model import DataSection
from cellfleet.data.annotations.coco import CocoFile, CocoImage
from cellfleet.data.files import natural_key, read_bytes, stem_of
from cellfleet.data.findings import Finding, error
from cellfleet.data.folder import INDEX, open_folder, walk
from cellfleet.data.index_csv import Index, read_index
from cellfleet.data.locate import to_path
from cellfleet.data.records import Entry, SplitName
from cellfleet.data.source import CocoMask, FileMask, Item, MaskSource, Source
from cellfleet.data.version import DataSetVersion
from cellfleet.errors import DataError

_SPLIT_WORDS: dict[str, SplitName] = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def open_source(section: DataSection, root: Path) -> Source:
    """List the annotated images that ``section.source`` names; nothing but names and tables is read.

    Args:
        section: settings; ``source`` and ``images`` are relative to ``root``.
        root: the project's folder.

    Raises:
        DataError, ReadError: no such source, or a table that cannot be read at all.
    """
    path = Path(os.path.abspath(root / Path(section.source).expanduser()))
    if path.is_dir():
        return open_folder(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file", hint="set data.source in cellfleet.toml")
    if path.suffix.lower() != ".json":
        raise DataError(f"{path}: neither a folder nor a JSON file", hint="name a folder with images/ and masks/")
    data = read_bytes(path)
    if _is_version(data):
        return _open_version(path)
    images = Path(os.path.abspath(root / Path(section.images).expanduser())) if section.images else path.parent
    if not images.is_dir():
        raise DataError(f"{images}: there is no such folder of images", hint="set data.images in cellfleet.toml")
    return _open_coco(path, data, images)


def _is_version(data: bytes) -> bool:
    if b'"manifest"' not in data:
        return False
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "manifest" in value and "images" not in value


def _open_version(path: Path) -> Source:
    version = DataSetVersion.load(path)
    annotations: dict[str, MaskSource] = {}
    items = [_frozen_item(e, version.root, annotations) for e in version.entries]
    return Source("version", version.root, tuple(items))


def _frozen_item(e: Entry, root: Path, annotations: dict[str, MaskSource]) -> Item:
    path = to_path(e.mask.uri, root)
    mask: MaskSource = FileMask(path)
    if e.mask.kind == "coco":
        known = annotations.get(e.mask.uri)
        if not isinstance(known, CocoMask):
            data = read_bytes(path)
            known = CocoMask(CocoFile.parse(data, path), sha256_hex(data), None)
            annotations[e.mask.uri] = known
        mask = CocoMask(known.file, known.sha256, e.mask.image_id)
    return Item(
        e.id, to_path(e.image.uri, root), mask, e.group, e.stratum, e.split, e.pixel_size_um, e.channels,
        e.metadata, e.provenance, frozen=e,
    )  # fmt: skip


def _open_coco(path: Path, data: bytes, folder: Path) -> Source:
    coco, sha256 = CocoFile.parse(data, path), sha256_hex(data)
    index = read_index(path.parent / INDEX) if (path.parent / INDEX).is_file() else Index()
    found = list(index.findings)
    if not coco.images:
        found.append(error("no-images", path.name, "the file lists no image", "check the annotation file"))
    if coco.orphans:
        some = ", ".join(coco.orphans[:5])
        message = f"{len(coco.orphans)} annotation(s) of images that the file does not list ({some})"
        found.append(error("orphan-mask", path.name, message, "remove them, or add the images"))
    by_name = _names(folder)
    items: dict[str, Item] = {}
    for image in sorted(coco.images, key=lambda i: natural_key(i.file_name)):
        ident = stem_of(image.file_name.replace("\\", "/"))
        file = _find(folder, image.file_name, by_name, found)
        if ident in items:
            found.append(error("same-name", image.file_name, "is listed twice", "remove one of the two image records"))
        elif file is not None:
            items[ident] = _coco_item(ident, file, CocoMask(coco, sha256, image.id), image, index)
    root = Path(os.path.commonpath([path.parent, folder]))
    return Source("coco", root, tuple(sorted(items.values(), key=lambda i: i.id)), tuple(found))


def _names(folder: Path) -> dict[str, list[Path]]:
    out: dict[str, list[Path]] = {}
    for p in walk(folder):
        out.setdefault(p.name, []).append(p)
    return out


def _find(folder: Path, name: str, by_name: dict[str, list[Path]], found: list[Finding]) -> Path | None:
    """``folder/name``, else the only file of that name below the folder (LIVECell keeps a folder per cell line)."""
    direct = Path(os.path.abspath(folder / name.replace("\\", "/")))
    if direct.is_relative_to(folder) and direct.exists():
        return direct
    same = by_name.get(Path(name).name, [])
    if len(same) == 1:
        return same[0]
    reason = f"is there {len(same)} times below" if same else "is not below"
    found.append(error("missing-image", name, f"{reason} {folder.name}/", "set data.images, or correct file_name"))
    return None


def _coco_item(ident: str, file: Path, mask: CocoMask, image: CocoImage, index: Index) -> Item:
    row, extra = index.get(ident), dict(image.extra)
    group, stratum = extra.pop("group", None), extra.pop("stratum", None)
    split = _SPLIT_WORDS.get(extra.pop("split", "").casefold())
    licence = extra.pop("licence", "")
    provenance = {"source": "coco", **({"licence": licence} if licence else {}), **row.provenance}
    return Item(
        ident, file, mask, row.group or group, row.stratum or stratum, row.split or split, row.pixel_size_um,
        row.channels, {**extra, **row.metadata}, provenance,
    )  # fmt: skip
