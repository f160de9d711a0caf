"""A folder of images/ and masks/ with the same names, and an optional index.csv."""

from __future__ import annotations

import os
from pathlib import Path

from cellfleet.data.files import FOREIGN, image_suffix, natural_key, stem_of
from cellfleet.data.findings import Finding, error, warning
from cellfleet.data.index_csv import Index, read_index
from cellfleet.data.source import FileMask, Item, Source
from cellfleet.errors import DataError

INDEX = "index.csv"
_JUNK = ("thumbs.db", "desktop.ini")
_LAYOUT = "a data set is a folder with images/ and masks/ of the same names, or a COCO JSON file"


def open_folder(root: Path) -> Source:
    """List a folder. Names are matched without suffix; sub-folders of images/ must be mirrored in masks/.

    Raises:
        DataError: neither images/ nor masks/, or index.csv unreadable (ReadError).
    """
    images, masks = root / "images", root / "masks"
    if not images.is_dir() and not masks.is_dir():
        raise DataError(f"{root}: there is no folder images/ and no folder masks/", hint=_LAYOUT)
    found: list[Finding] = []
    if not images.is_dir():
        found.append(error("no-images", root.name, "there is no folder images/", _LAYOUT))
    if not masks.is_dir():
        found.append(error("no-masks", root.name, "there is no folder masks/", _LAYOUT))
    image_files = list_files(images, "images", found)
    mask_files = list_files(masks, "masks", found)
    index = read_index(root / INDEX) if (root / INDEX).is_file() else Index()
    found += index.findings
    if images.is_dir() and not image_files:
        found.append(error("no-images", "images", "the folder holds no image", _LAYOUT))
    if image_files:  # without any, every mask and every row would be one more error of the same cause
        _compare(image_files, mask_files, index, masks.is_dir(), found)
    items = [_item(i, f, mask_files.get(i), index) for i, f in image_files.items()]
    return Source("folder", root, tuple(sorted(items, key=lambda i: i.id)), tuple(found))


def list_files(folder: Path, label: str, findings: list[Finding]) -> dict[str, Path]:
    """Images below a folder by id, in natural order; clashes and foreign files are added to ``findings``."""
    out: dict[str, Path] = {}
    for path in sorted(walk(folder), key=lambda p: natural_key(p.relative_to(folder).as_posix())):
        relative = path.relative_to(folder).as_posix()
        name = f"{label}/{relative}".encode("utf-8", "replace").decode()
        if not image_suffix(path.name):
            findings.append(_foreign(path, name))
        elif name != f"{label}/{relative}":
            findings.append(error("name", name, "the file name is not valid Unicode", "rename the file"))
        elif stem_of(relative) in out:
            other = out[stem_of(relative)].name
            findings.append(error("same-name", name, f"has the same name as {other}", "remove or rename one of them"))
        else:
            out[stem_of(relative)] = path
    return out


def walk(folder: Path) -> list[Path]:
    """All files below a folder; an OME-Zarr folder counts as one; hidden ones and system litter are passed over."""
    out: list[Path] = []
    for here, folders, files in os.walk(folder):
        zarrs = [d for d in folders if image_suffix(d)]
        folders[:] = [d for d in folders if d not in zarrs and not d.startswith(".")]
        out += [Path(here) / n for n in (*zarrs, *files) if not n.startswith(".") and n.lower() not in _JUNK]
    return out


def _foreign(path: Path, name: str) -> Finding:
    if path.suffix.lower() in FOREIGN:
        return error(
            "format", name, f"{path.suffix} files are not read", "export it as TIFF or PNG, 8 or 16 bit, without loss"
        )
    return warning("not-an-image", name, "is not an image; it is skipped", "move it elsewhere")


def _compare(
    images: dict[str, Path], masks: dict[str, Path], index: Index, have_masks: bool, found: list[Finding]
) -> None:
    for i in images:
        name = f"images/{i}"
        if have_masks and i not in masks:
            found.append(error("missing-mask", name, "has no mask", f"add masks/{i}.tif, or remove the image"))
        if index.rows and i not in index.rows:
            found.append(
                warning(
                    "index", name, f"has no row in {INDEX}", "add a row, or it is a group of its own in stratum all"
                )
            )
    for i in masks:
        if i not in images:
            found.append(error("orphan-mask", f"masks/{masks[i].name}", "has no image", "add the image, or remove it"))
    for i, row in index.rows.items():
        if i not in images:
            found.append(
                error("index", INDEX, f"row {row.file}: there is no such image", "remove the row, or add the image")
            )


def _item(image_id: str, image: Path, mask: Path | None, index: Index) -> Item:
    row = index.get(image_id)
    return Item(
        image_id,
        image,
        FileMask(mask) if mask is not None else None,
        row.group,
        row.stratum,
        row.split,
        row.pixel_size_um,
        row.channels,
        row.metadata,
        {"source": "folder", **row.provenance},
    )
