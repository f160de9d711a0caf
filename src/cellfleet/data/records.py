"""The records of a data set version, as they are stored: strict, frozen, digested."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

FORMAT_VERSION = 1
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Record(BaseModel):
    """Base of stored records: frozen, strict, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ImageRef(Record):
    """An image file.

    Attributes:
        uri: ``/``-separated path relative to the version's root, or an absolute URI (``file://``, ``s3://`` ...).
        sha256: digest of its bytes (see ``cellfleet.data.images.reader.Raw`` for an OME-Zarr folder).
        pixels_sha256: digest of the decoded values, the same in every file format.
    """

    uri: str = Field(min_length=1)
    sha256: Sha256
    pixels_sha256: Sha256


class MaskRef(Record):
    """A mask: a label image, or the objects of one image in a COCO annotation file.

    Attributes:
        kind: ``labels`` or ``coco``.
        uri, sha256: as in ImageRef; for ``coco`` those of the annotation file.
        pixels_sha256: digest of the label image that results.
        image_id: ``coco`` only: the image's id in the annotation file.
    """

    kind: Literal["labels", "coco"] = "labels"
    uri: str = Field(min_length=1)
    sha256: Sha256
    pixels_sha256: Sha256
    image_id: int | str | None = None


class Entry(Record):
    """One image with its mask.

    Attributes:
        id: unique within the version; the image's path below the images folder, without suffix.
        image, mask: references with digests.
        channels: names, in the order of axis C.
        dtype: of the image's pixels.
        height, width: in pixels.
        pixel_size_um: None when unknown.
        objects: number of objects in the mask.
        group: never straddles a split; the id itself when the data set names none.
        stratum: present in every split where it can be; ``all`` when the data set names none.
        split: ``train``, ``validation`` or ``test``.
        metadata: further columns of index.csv or fields of COCO, and the file's own metadata (exposure ...), as text.
        provenance: where it comes from: ``source`` (folder, coco), ``licence`` and so on, where known.
    """

    id: str = Field(min_length=1)
    image: ImageRef
    mask: MaskRef
    channels: tuple[str, ...] = Field(min_length=1)
    dtype: Literal["uint8", "uint16"]
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    pixel_size_um: float | None = Field(None, gt=0)
    objects: int = Field(ge=0)
    group: str = Field(min_length=1)
    stratum: str = Field(min_length=1)
    split: SplitName
    metadata: dict[str, str] = {}
    provenance: dict[str, str] = {}


class Manifest(Record):
    """What the digest of a data set version covers."""

    format_version: Literal[1] = 1
    entries: tuple[Entry, ...] = Field(min_length=1)


class Stored(Record):
    """The file: manifest, its digest, and the place of the files, which is not digested."""

    digest: Sha256
    root: str
    manifest: Manifest
