"""COCO annotation files with polygons or RLE, as LIVECell has them, to label images.

Objects are painted from the largest to the smallest, so that the smaller one stays on top; pixels that more than one
object covers are counted. Crowd regions (``iscrowd``) are no instances: they are left out and counted.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.data.annotations.coco_shapes import Patch, patch_of
from cellfleet.data.files import check_size
from cellfleet.errors import DataError, ReadError

_HINT = "check the annotation file, or export it again"


@dataclass(frozen=True)
class CocoImage:
    """One image record: its id, file name, size in pixels, and every further simple field as text."""

    id: int | str
    file_name: str
    height: int
    width: int
    extra: dict[str, str]


@dataclass(frozen=True, eq=False)
class Rasterised:
    """Annotations as a mask.

    Attributes:
        labels: [H, W] uint32, numbered 1..n in the order of the annotations in the file.
        annotations: n, crowds not counted.
        overlap_px: pixels that more than one object covers.
        hidden: ids of annotations that cover no pixel of their own (outside, or wholly under smaller ones).
        crowds: number of crowd regions left out.
    """

    labels: NDArray[np.uint32]
    annotations: int
    overlap_px: int
    hidden: tuple[str, ...]
    crowds: int


@dataclass(frozen=True, eq=False)
class CocoFile:
    """A parsed annotation file."""

    path: Path
    images: tuple[CocoImage, ...]
    orphans: tuple[str, ...]
    _annotations: dict[int | str, list[dict[str, Any]]] = field(repr=False)

    @classmethod
    def parse(cls, data: bytes, path: Path) -> CocoFile:
        """Read an annotation file from its bytes.

        Raises:
            ReadError: no JSON, no COCO, or a record that makes no sense; the message names it.
        """
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as e:
            raise ReadError(f"{path}: truncated or not valid JSON: {e}", hint=_HINT) from e
        if not isinstance(value, dict) or not isinstance(value.get("images"), list):
            raise ReadError(f"{path}: not a COCO file (no list 'images')", hint=_HINT)
        licences = {li.get("id"): li.get("name") for li in _dicts(value, "licenses", path)}
        images = tuple(_image(r, licences, path) for r in _dicts(value, "images", path))
        known = {i.id for i in images}
        if len(known) != len(images):
            raise ReadError(f"{path}: two images have the same id", hint=_HINT)
        by_image: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
        for record in _annotation_records(value, path):
            by_image[record.get("image_id", "")].append(record)
        orphans = tuple(str(r.get("id")) for i, rs in by_image.items() if i not in known for r in rs)
        return cls(path, images, orphans, dict(by_image))

    def image(self, image_id: int | str | None) -> CocoImage:
        """The image of that id; DataError when there is none."""
        found = next((i for i in self.images if i.id == image_id), None)
        if found is None:
            raise DataError(f"{self.path}: no image with the id {image_id!r}", hint=_HINT)
        return found

    def rasterise(self, image_id: int | str | None) -> Rasterised:
        """Paint the objects of one image.

        Raises:
            ReadError: a polygon or RLE that makes no sense; the message names the annotation.
            DataError: no such image.
        """
        image = self.image(image_id)
        shape = (image.height, image.width)
        records = self._annotations.get(image.id, [])
        real = [r for r in records if not r.get("iscrowd")]
        patches = [patch_of(r, shape, f"{self.path}: annotation {r.get('id')}") for r in real]
        labels, overlap = _paint(patches, shape)
        seen = np.bincount(labels.ravel(), minlength=len(real) + 1)
        hidden = tuple(str(r.get("id")) for i, r in enumerate(real, 1) if seen[i] == 0)
        return Rasterised(labels, len(real), overlap, hidden, len(records) - len(real))


def _paint(patches: list[Patch], shape: tuple[int, int]) -> tuple[NDArray[np.uint32], int]:
    labels = np.zeros(shape, np.uint32)
    overlap = np.zeros(shape, np.bool_)
    areas = [int(p.mask.sum()) for p in patches]
    for i in sorted(range(len(patches)), key=lambda i: (-areas[i], i)):
        part, mask = patches[i].of(labels), patches[i].mask
        patches[i].of(overlap)[mask & (part > 0)] = True
        part[mask] = i + 1
    return labels, int(overlap.sum())


def _dicts(value: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    records = value.get(key) or []
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise ReadError(f"{path}: {key!r} is not a list of objects", hint=_HINT)
    return records


def _annotation_records(value: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The annotations as a list; LIVECell's single-class files hold them in a dictionary by id."""
    if isinstance(value.get("annotations"), dict):
        value = {"annotations": list(value["annotations"].values())}
    records = _dicts(value, "annotations", path)
    if any(not isinstance(r.get("image_id", ""), int | str) for r in records):
        raise ReadError(f"{path}: an annotation without a proper image_id", hint=_HINT)
    return records


def _image(record: dict[str, Any], licences: dict[Any, Any], path: Path) -> CocoImage:
    ident, name = record.get("id"), record.get("file_name")
    height, width = record.get("height"), record.get("width")
    if not isinstance(ident, int | str) or not isinstance(name, str) or not name:
        raise ReadError(f"{path}: an image record without id or file_name", hint=_HINT)
    if not isinstance(height, int) or not isinstance(width, int) or height < 1 or width < 1:
        raise ReadError(f"{path}: image {name!r} has no proper height and width", hint=_HINT)
    check_size(height * width, f"{path}: image {name!r}")
    known = ("id", "file_name", "height", "width", "license")
    extra = {k: str(v) for k, v in record.items() if k not in known and isinstance(v, str | int | float) and v != ""}
    licence = licences.get(record.get("license"))
    return CocoImage(ident, name, height, width, {**extra, "licence": str(licence)} if licence else extra)
