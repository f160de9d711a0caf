"""Sources of annotated images: what there is, before any of it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cellfleet.data.annotations.coco import CocoFile
from cellfleet.data.findings import Finding, warning
from cellfleet.data.images.reader import decode_mask, load_raw
from cellfleet.data.records import Entry, SplitName


@dataclass(frozen=True, eq=False)
class MaskData:
    """A mask that was read: labels [H, W] uint32, the digest of its file, findings (overlap ...)."""

    labels: NDArray[np.uint32]
    sha256: str
    findings: tuple[Finding, ...] = ()


class MaskSource(Protocol):
    """Where the mask of an image comes from."""

    @property
    def kind(self) -> Literal["labels", "coco"]:
        """As in MaskRef."""
        ...

    @property
    def path(self) -> Path:
        """The mask file or the annotation file."""
        ...

    @property
    def image_id(self) -> int | str | None:
        """The id in the annotation file, else None."""
        ...

    def read(self, name: str) -> MaskData:
        """Read it; ``name`` stands in findings. Raises DataError or ReadError."""
        ...


@dataclass(frozen=True)
class FileMask:
    """A label image in a file of its own."""

    path: Path
    kind: Literal["labels", "coco"] = "labels"
    image_id: int | str | None = None

    def read(self, name: str) -> MaskData:
        """Read the label image."""
        del name
        raw = load_raw(self.path)
        return MaskData(decode_mask(raw, str(self.path)), raw.sha256)


@dataclass(frozen=True)
class CocoMask:
    """The objects of one image in a COCO file that has been parsed."""

    file: CocoFile
    sha256: str
    image_id: int | str | None
    kind: Literal["labels", "coco"] = "coco"

    @property
    def path(self) -> Path:
        """The annotation file."""
        return self.file.path

    def read(self, name: str) -> MaskData:
        """Paint the objects; overlaps, hidden objects and crowds become findings."""
        r = self.file.rasterise(self.image_id)
        found = []
        if r.overlap_px:
            found.append(
                warning("overlap", name, f"{r.overlap_px} pixels are covered by more than one object",
                        "nothing, if cells overlap: the smaller object is on top; else correct the outlines")
            )  # fmt: skip
        if r.hidden:
            found.append(
                warning("hidden", name, f"{len(r.hidden)} annotation(s) cover no pixel of their own "
                        f"({', '.join(r.hidden[:5])})", "remove them, or correct their outlines")
            )  # fmt: skip
        if r.crowds:
            found.append(
                warning("crowd", name, f"{r.crowds} crowd region(s) are left out", "outline each of their cells")
            )
        return MaskData(r.labels, self.sha256, tuple(found))


@dataclass(frozen=True)
class Item:
    """One image and its mask as the source names them.

    Attributes:
        id: see Entry.
        image: the file.
        mask: None when it is missing (the source has a finding then).
        group, stratum, split, pixel_size_um, channels: None where the source does not say.
        metadata, provenance: see Entry.
        frozen: the entry, when the source is a data set version.
    """

    id: str
    image: Path
    mask: MaskSource | None
    group: str | None = None
    stratum: str | None = None
    split: SplitName | None = None
    pixel_size_um: float | None = None
    channels: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    frozen: Entry | None = None


@dataclass(frozen=True)
class Source:
    """A data set before it is frozen.

    Attributes:
        kind: ``folder``, ``coco`` or ``version``.
        root: the folder that URIs are relative to.
        items: sorted by id.
        findings: what is wrong with the listing itself (orphans, index.csv).
    """

    kind: Literal["folder", "coco", "version"]
    root: Path
    items: tuple[Item, ...]
    findings: tuple[Finding, ...] = ()

    def name(self, path: Path) -> str:
        """A file's path below the root, for findings."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
