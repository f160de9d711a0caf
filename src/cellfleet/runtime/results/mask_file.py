"""The label mask as a file: TIFF with everything in it that says where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellfleet.canonical import sha256_hex
from cellfleet.errors import ReadError
from cellfleet.ports import atomic_path
from cellfleet.runtime.objects import compact_labels

MASK_FORMAT = 1
_KEY = "cellfleet_mask"


def write_mask(path: Path, labels: NDArray[np.uint32], facts: dict[str, Any], pixel_size_um: float | None) -> None:
    """Write a label mask: uint16, or uint32 above 65,535 objects; deflate; facts as JSON in ImageDescription.

    Args:
        path: the file; whole or absent, never half.
        labels: uint32 [H,W].
        facts: plain JSON data; a digest of the labels and the format version are added.
        pixel_size_um: goes into the resolution tags when it is known.

    Raises:
        StorageError: the disk refuses.
    """
    compact = compact_labels(labels)
    description = {**facts, _KEY: MASK_FORMAT, "labels_sha256": labels_digest(compact)}
    options: dict[str, Any] = {}
    if pixel_size_um is not None:
        options = {"resolution": (1e4 / pixel_size_um, 1e4 / pixel_size_um), "resolutionunit": "CENTIMETER"}
    with atomic_path(path) as part:
        tifffile.imwrite(
            part,
            compact,
            photometric="minisblack",
            compression="zlib",
            maxworkers=1,
            metadata=None,
            description=json.dumps(description, sort_keys=True, allow_nan=False),
            software="cellfleet",
            **options,
        )


def read_mask_metadata(path: Path) -> dict[str, Any]:
    """What a mask written by ``cellfleet segment`` says of itself.

    Returns:
        ``run_digest``, ``model``, ``model_version``, ``bundle_sha256``, ``variant``, ``engine``, ``engine_version``,
        ``settings``, ``source``, ``source_sha256``, ``frame``, ``frame_index``, ``time_s``, ``pixel_size_um``, ``count``,
        ``labels_sha256``.

    Raises:
        ReadError: no TIFF, or one that says nothing of the kind.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            text = tif.pages.first.description
    except (OSError, ValueError, IndexError, KeyError, TypeError) as e:
        raise ReadError(f"{path}: cannot be read as TIFF: {e}", hint="name a mask from `cellfleet segment`") from e
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or _KEY not in facts:
        raise ReadError(
            f"{path}: says nothing of where it comes from; it was not written by `cellfleet segment`, or saved by "
            "another program since",
            hint="name the original mask, or a row of objects.csv",
        )
    if facts.pop(_KEY) != MASK_FORMAT:
        raise ReadError(f"{path}: written by a newer cellfleet", hint="update cellfleet on this machine")
    return facts


def labels_digest(labels: NDArray[Any]) -> str:
    """SHA-256 of a mask's labels as stored: uint16 or uint32, little-endian, row by row."""
    little = np.ascontiguousarray(labels, labels.dtype.newbyteorder("<"))
    return sha256_hex(little.data.cast("B"))


def read_labels(path: Path) -> NDArray[np.uint32]:
    """The labels of a mask that ``write_mask`` wrote: uint32 [H,W].

    Raises:
        ReadError: it cannot be read.
    """
    try:
        labels: NDArray[np.uint32] = tifffile.imread(path).astype(np.uint32)
    except Exception as e:  # tifffile and its codecs raise whatever they meet in a damaged file
        raise ReadError(f"{path}: truncated or damaged: {e}", hint="restore it, or segment the frame again") from e
    return labels
