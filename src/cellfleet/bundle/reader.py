"""Opening a bundle: nothing is trusted, everything is checked before any of it is used, nothing is unpacked to the disk.

1. The container: a stored zip archive that accounts for every byte (``archive``).
2. bundle.json: a known format version, strict, no unknown field.
3. The files: exactly those that it names, each of the named size and digest.
4. The networks: plain ONNX with the promised inputs and outputs (``onnx_policy``).
5. The golden frames: arrays of the promised kind (``golden``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from cellfleet.bundle.archive import ArchiveLimits, Span, index, read_span
from cellfleet.bundle.folder import PORTABLE
from cellfleet.bundle.golden import GoldenFrame, GoldenRecord, read_npy
from cellfleet.bundle.manifest import CARD, DESCRIPTION, MANIFEST, REFERENCE, Manifest
from cellfleet.bundle.onnx_policy import check_onnx
from cellfleet.bundle.refusals import BadDescription, BadFrame, UnknownFormat, WrongDigest, WrongFiles
from cellfleet.bundle.spec import FORMAT_VERSION, Lineage, ModelSpec, Variant
from cellfleet.canonical import sha256_file, sha256_hex
from cellfleet.errors import BundleError

_MANIFEST_BYTES = 16_000_000
_LABELS = ("<u2", "<u4")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that was checked.

    Attributes:
        path: the file.
        sha256: digest of the whole file: the bundle's identity.
        manifest: what it says of itself.
    """

    path: Path
    sha256: str
    manifest: Manifest
    _spans: dict[str, Span] = field(repr=False)

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return self.manifest.spec

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants; all of them passed their gate."""
        return self.manifest.variants

    @property
    def lineage(self) -> Lineage:
        """Where the model comes from."""
        return self.manifest.lineage

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files, sorted."""
        return tuple(sorted(self._spans))

    def read(self, name: str) -> bytes:
        """The bytes of a file, checked again against their digest.

        Raises:
            WrongFiles: there is no such file.
            WrongDigest: the file changed since the bundle was opened.
        """
        if name not in self._spans:
            raise WrongFiles(f"{self.path} holds no {name}")
        data = read_span(self.path, self._spans[name])
        if name != MANIFEST and sha256_hex(data) != self.manifest.files[name].sha256:
            raise WrongDigest(f"{self.path}: {name} is not the described file")
        return data

    def golden(self) -> list[GoldenFrame]:
        """The golden frames.

        Raises:
            BadFrame: one of them cannot be read.
        """
        return [self._golden(record) for record in self.manifest.golden]

    def _golden(self, record: GoldenRecord) -> GoldenFrame:
        base = f"golden/{record.name}"
        pixels = read_npy(self.read(f"{base}/image.npy"), f"{base}/image.npy", dtypes=("|u1", "<u2"), ndim=3)
        truth = read_npy(self.read(f"{base}/truth.npy"), f"{base}/truth.npy", dtypes=_LABELS, ndim=2)
        expected = {v: read_npy(self.read(f), f, dtypes=_LABELS, ndim=2) for v, f in record.expected.items()}
        shapes = {a.shape for a in (pixels[0], truth, *expected.values())}
        if len(shapes) != 1 or pixels.shape[0] != len(record.channels):
            raise BadFrame(f"{self.path}: the arrays of the golden frame {record.name} do not fit together")
        return GoldenFrame(record.name, pixels, record.channels, record.pixel_size_um, record.stratum, truth, expected)


def open_bundle(path: str | Path, limits: ArchiveLimits | None = None) -> Bundle:
    """Open a bundle and check all of it.

    Args:
        path: the file.
        limits: sizes above which it is refused.

    Returns:
        The bundle: manifest, variants and golden frames, all checked; networks are loaded later.

    Raises:
        BundleError: a subclass that says in which way it is refused (``cellfleet.bundle.refusals``).
    """
    file = Path(path)
    spans = index(file, limits or ArchiveLimits())
    manifest = _manifest(file, spans)
    _check_files(file, spans, manifest)
    try:
        digest = sha256_file(file)
    except OSError as e:
        raise BundleError(f"cannot read {file}: {e.strerror}", hint="check the permissions and the disk") from e
    bundle = Bundle(file, digest, manifest, spans)
    _check_contents(bundle)
    return bundle


def _manifest(file: Path, spans: dict[str, Span]) -> Manifest:
    if MANIFEST not in spans:
        raise WrongFiles(f"{file} holds no {MANIFEST}, so it is not a cellfleet bundle")
    if spans[MANIFEST].size > _MANIFEST_BYTES:
        raise BadDescription(f"{file}: {MANIFEST} has {spans[MANIFEST].size:,} bytes")
    data = read_span(file, spans[MANIFEST])
    try:
        value = json.loads(data)
        version = value["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise BadDescription(f"{file}: {MANIFEST} is not readable: {e}") from e
    if version != FORMAT_VERSION:
        raise UnknownFormat(
            f"{file} has the format version {version!r}; this program knows {FORMAT_VERSION}",
            hint="update cellfleet on this machine",
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise BadDescription(f"{file}: {MANIFEST}: {where}: {first['msg']}") from e


def _check_files(file: Path, spans: dict[str, Span], manifest: Manifest) -> None:
    described, present = set(manifest.files), set(spans) - {MANIFEST}
    if missing := sorted(described - present):
        raise WrongFiles(f"{file} lacks {', '.join(missing[:5])}")
    if extra := sorted(present - described):
        raise WrongFiles(f"{file} holds {', '.join(extra[:5])}, which its description does not name")
    needed = {PORTABLE, DESCRIPTION, CARD, REFERENCE, *(v.file for v in manifest.variants)}
    needed |= {f for g in manifest.golden for f in g.expected.values()}
    needed |= {f"golden/{g.name}/{part}.npy" for g in manifest.golden for part in ("image", "truth")}
    if absent := sorted(needed - present):
        raise WrongFiles(f"{file} names {', '.join(absent[:5])} but does not hold it")
    for name, record in manifest.files.items():
        if spans[name].size != record.bytes:
            raise WrongDigest(f"{file}: {name} has {spans[name].size} bytes, the description says {record.bytes}")
        if sha256_hex(read_span(file, spans[name])) != record.sha256:
            raise WrongDigest(f"{file}: {name} is not the described file (its SHA-256 differs)")


def _check_contents(bundle: Bundle) -> None:
    manifest = bundle.manifest
    if (manifest.name, manifest.version) != (manifest.spec.name, manifest.spec.version):
        raise BadDescription(f"{bundle.path}: {MANIFEST} and its ModelSpec name different models")
    names = [v.name for v in manifest.variants]
    if not names or len(set(names)) != len(names):
        raise BadDescription(f"{bundle.path}: the variants are {', '.join(names) or 'none'}")
    for variant in manifest.variants:
        if variant.sha256 != manifest.files[variant.file].sha256:
            raise WrongDigest(f"{bundle.path}: the variant {variant.name} names another digest for its file")
        check_onnx(bundle.read(variant.file), bundle.spec)
    check_onnx(bundle.read(PORTABLE), bundle.spec, portable=True)
    bundle.golden()
