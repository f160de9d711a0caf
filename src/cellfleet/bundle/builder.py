"""Building a bundle: a pure function of a model folder, golden frames and a model card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellfleet.bundle.archive import pack
from cellfleet.bundle.description import ModelCard, TestTensors, card_text, describe, run_portable, yaml_bytes
from cellfleet.bundle.folder import PORTABLE, ModelFolder
from cellfleet.bundle.golden import GoldenFrame, npy_bytes
from cellfleet.bundle.manifest import (
    CARD,
    DESCRIPTION,
    MANIFEST,
    REFERENCE,
    SUFFIX,
    FileRecord,
    Manifest,
    Requires,
    Tolerance,
)
from cellfleet.bundle.onnx_policy import check_onnx
from cellfleet.bundle.reader import Bundle, open_bundle
from cellfleet.bundle.spec import FORMAT_VERSION, Lineage
from cellfleet.canonical import canonical_bytes, sha256_file, sha256_hex
from cellfleet.errors import BundleError
from cellfleet.ports import atomic_path

_TEST_PX = 128
LEAST_AGREEMENT = {"onnxruntime": 0.9, "openvino": 0.85, "tensorrt": 0.85}
"""Least AP@0.5 between a device's labels and the expected ones, by engine: rounding differs from one CPU to another."""


@dataclass(frozen=True)
class BuiltBundle:
    """A bundle that was written.

    Attributes:
        path: its file.
        sha256: its digest.
        replaced: digest of a bundle with other bytes that had this name and version before; None when there was none.
    """

    path: Path
    sha256: str
    replaced: str | None


def bundle_bytes(folder: ModelFolder, golden: Sequence[GoldenFrame], card: ModelCard) -> bytes:
    """The bundle as bytes.

    Raises:
        BundleError: no golden frame, or a file of the model folder that must not go into a bundle.
    """
    if not golden:
        raise BundleError("a bundle needs at least one golden frame", hint="raise bundle.golden_frames")
    spec, model = folder.spec, folder.model
    portable = folder.read(PORTABLE, model.portable_sha256)
    check_onnx(portable, spec, portable=True)
    files: dict[str, bytes] = {PORTABLE: portable, REFERENCE: canonical_bytes(model.reference)}
    for variant in folder.variants:
        files[variant.file] = folder.read(variant.file, variant.sha256)
        check_onnx(files[variant.file], spec)
    for frame in golden:
        files |= frame.files()
    tensors = test_tensors(portable, golden[0])
    files["test-image.npy"] = npy_bytes(tensors.image)
    files |= {f"test-{name}.npy": npy_bytes(value) for name, value in tensors.outputs.items()}
    names = [f"`{v.name}`: {v.file}" for v in folder.variants]
    files[CARD] = card_text(spec, card, lineage_lines(folder.lineage), names).encode()
    files[DESCRIPTION] = yaml_bytes(describe(spec, card, portable, files))
    manifest = Manifest(
        name=spec.name,
        version=spec.version,
        spec=spec,
        variants=folder.variants,
        requires=Requires(
            bundle_format=FORMAT_VERSION,
            engines=tuple(sorted({v.engine for v in folder.variants})),
            channels=spec.channels,
            pixel_size=spec.demands_pixel_size,
        ),
        lineage=folder.lineage,
        golden=tuple(frame.record() for frame in golden),
        tolerances={
            e: Tolerance(least_agreement=LEAST_AGREEMENT[e]) for e in sorted({v.engine for v in folder.variants})
        },
        files={name: FileRecord(sha256=sha256_hex(data), bytes=len(data)) for name, data in sorted(files.items())},
    )
    return pack({**files, MANIFEST: canonical_bytes(manifest.as_json())})


def build_bundle(
    folder: ModelFolder,
    golden: Sequence[GoldenFrame],
    card: ModelCard,
    out: Path,
    check: Callable[[Path], None] = lambda _bundle: None,
) -> BuiltBundle:
    """Build a bundle and write it to the folder ``out``.

    Args:
        folder, golden, card: what goes into it.
        out: folder; the file is called ``<name>-<version>.bundle.zip``.
        check: called with the path of the new file before it takes its place; what it raises leaves things as they were.

    Returns:
        The file that was written, and its SHA-256.

    Raises:
        BundleError: see ``bundle_bytes`` and ``open_bundle``, with which the new file is opened before it takes its place.
        StorageError: the disk refuses.
    """
    data = bundle_bytes(folder, golden, card)
    path = out / f"{folder.spec.name}-{folder.spec.version}{SUFFIX}"
    with atomic_path(path) as part:
        part.write_bytes(data)
        opened: Bundle = open_bundle(part)
        check(part)
        before = sha256_file(path) if path.is_file() else None
    return BuiltBundle(path, opened.sha256, before if before != opened.sha256 else None)


def test_tensors(portable: bytes, frame: GoldenFrame) -> TestTensors:
    """A corner of a golden frame and what portable.onnx makes of it."""
    image = np.ascontiguousarray(frame.pixels[None, :, :_TEST_PX, :_TEST_PX], np.float32)
    return TestTensors(image, run_portable(portable, image))


test_tensors.__test__ = False  # type: ignore[attr-defined]


def lineage_lines(lineage: Lineage) -> list[str]:
    """The lineage for people."""
    commit = lineage.project_commit or "no git"
    dirty = " with uncommitted changes" if lineage.project_dirty else ""
    return [
        f"data set version {lineage.data_set}",
        f"training run {lineage.training_run}",
        f"project commit {commit}{dirty}",
        f"environment {lineage.environment}",
        f"cellfleet {lineage.cellfleet_version}",
    ]
