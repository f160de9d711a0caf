"""The model folder: a model in the making; ``export`` writes it, ``optimize`` adds variants, ``bundle build`` packs it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import ValidationError

from cellfleet.bundle.spec import Lineage, ModelSpec, Record, Sha256, Variant
from cellfleet.canonical import canonical_bytes, sha256_hex
from cellfleet.errors import BundleError
from cellfleet.ports import write_atomic

MODEL_FILE = "model.json"
PORTABLE = "portable.onnx"


class Model(Record):
    """What model.json holds.

    Attributes:
        spec: the model.
        variants: files for engines; the first is the reference, ``onnxruntime/fp32``.
        portable_sha256: digest of ``portable.onnx``, the single-input form for other programs.
        lineage: where the model comes from.
        reference: statistics of the training frames, for drift detection; plain JSON data.
    """

    format_version: Literal[1] = 1
    spec: ModelSpec
    variants: tuple[Variant, ...]
    portable_sha256: Sha256
    lineage: Lineage
    reference: dict[str, Any]


class ModelFolder:
    """A folder with model.json and the ONNX files that it names.

    Attributes:
        path: the folder.
        model: its description.
    """

    def __init__(self, path: Path, model: Model) -> None:
        self.path = path
        self.model = model

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return self.model.spec

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Files for engines."""
        return self.model.variants

    @property
    def lineage(self) -> Lineage:
        """Where the model comes from."""
        return self.model.lineage

    @classmethod
    def load(cls, path: Path) -> ModelFolder:
        """Read a model folder and check that its files are the described ones.

        Raises:
            BundleError: no model folder, a description that makes no sense, or a file that is absent or changed.
        """
        file = path / MODEL_FILE
        try:
            model = Model.model_validate_json(file.read_bytes())
        except FileNotFoundError as e:
            raise BundleError(
                f"{path} is not a model folder (no {MODEL_FILE})", hint="make one with `cellfleet export`"
            ) from e
        except OSError as e:
            raise BundleError(f"cannot read {file}: {e.strerror}", hint="check its permissions") from e
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BundleError(f"{file}: {where}: {first['msg']}", hint="export the model again") from e
        folder = cls(path, model)
        for variant in model.variants:
            folder.read(variant.file, variant.sha256)
        folder.read(PORTABLE, model.portable_sha256)
        return folder

    def file(self, name: str) -> Path:
        """The path of a file of the folder.

        Raises:
            BundleError: a name that leads out of the folder.
        """
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or not parts.parts:
            raise BundleError(f"{self.path}: {name!r} leads out of the model folder", hint="export the model again")
        return self.path.joinpath(*parts.parts)

    def read(self, name: str, sha256: str) -> bytes:
        """The bytes of a file, checked against its digest.

        Args:
            name: path of the file inside the folder, with ``/``.
            sha256: its expected digest, 64 hex digits.

        Returns:
            The file's bytes.

        Raises:
            BundleError: absent or changed.
        """
        path = self.file(name)
        try:
            data = path.read_bytes()
        except OSError as e:
            raise BundleError(f"cannot read {path}: {e.strerror}", hint="export the model again") from e
        if sha256_hex(data) != sha256:
            raise BundleError(
                f"{path} was changed: its SHA-256 is not the described one", hint="export the model again"
            )
        return data

    def save(self) -> None:
        """Write model.json; the files that it names must be there already.

        Raises:
            StorageError: the disk refuses.
        """
        write_atomic(self.path / MODEL_FILE, canonical_bytes(self.model.model_dump(mode="json")))

    def with_variant(self, variant: Variant) -> ModelFolder:
        """The same with a variant added, or replaced; not saved yet."""
        others = [v for v in self.variants if v.name != variant.name]
        ordered = sorted([*others, variant], key=lambda v: (v.name != "onnxruntime/fp32", v.name))
        return ModelFolder(self.path, self.model.model_copy(update={"variants": tuple(ordered)}))

    def without_variant(self, name: str) -> ModelFolder:
        """The same without a variant; not saved yet."""
        kept = tuple(v for v in self.variants if v.name != name)
        return ModelFolder(self.path, self.model.model_copy(update={"variants": kept}))
