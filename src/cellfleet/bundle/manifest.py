"""bundle.json: what a bundle says of itself."""

from __future__ import annotations

from typing import Any, Literal

from cellfleet.bundle.golden import GoldenRecord
from cellfleet.bundle.spec import Lineage, ModelSpec, Name, Record, SemVer, Sha256, Variant

MANIFEST = "bundle.json"
REFERENCE = "reference.json"
DESCRIPTION = "bioimageio.yaml"
CARD = "README.md"
SUFFIX = ".bundle.zip"


class FileRecord(Record):
    """A file of the bundle: its digest and its size in bytes."""

    sha256: Sha256
    bytes: int


class Requires(Record):
    """What a device needs to use the bundle.

    Attributes:
        bundle_format: format version that its program must know.
        engines: engines of which it needs at least one.
        channels: channels that its frames must have.
        pixel_size: frames must state their pixel size.
    """

    bundle_format: int
    engines: tuple[str, ...]
    channels: tuple[str, ...]
    pixel_size: bool


class Tolerance(Record):
    """How far a device may be off the expected labels of a golden frame.

    Attributes:
        least_agreement: least AP@0.5 between the device's labels and the expected ones.
    """

    least_agreement: float


class Manifest(Record):
    """bundle.json.

    Attributes:
        files: every other file of the bundle by name.
        tolerances: by engine.
    """

    format_version: Literal[1] = 1
    name: Name
    version: SemVer
    spec: ModelSpec
    variants: tuple[Variant, ...]
    requires: Requires
    lineage: Lineage
    golden: tuple[GoldenRecord, ...]
    tolerances: dict[str, Tolerance]
    files: dict[str, FileRecord]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return self.model_dump(mode="json")
