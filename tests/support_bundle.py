"""A small bundle of the tiny network with golden frames of drawn discs, and bundles changed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle import GoldenFrame, ModelCard, ModelFolder, ModelSpec
from cellfleet.bundle.archive import ArchiveLimits, index, pack, read_span
from cellfleet.bundle.builder import build_bundle
from cellfleet.bundle.manifest import MANIFEST
from cellfleet.canonical import canonical_bytes, sha256_hex
from cellfleet.config.model import BundleSection
from cellfleet.evaluate.golden import expect
from support_onnx import tiny_folder, tiny_spec

CARD = ModelCard(
    description="Finds bright discs",
    license="CC-BY-4.0",
    authors=("A. Tester",),
    data="Drawn discs.",
    limits=("Nothing but discs.",),
)


def discs(seed: int, height: int = 72, width: int = 96) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Six bright discs on a dim noisy ground [H,W], and their labels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint16)
    for i in range(6):
        cy, cx = (i % 2 + 0.5) * height / 2, (i // 2 + 0.5) * width / 3
        cy, cx = cy + random.uniform(-4, 4), cx + random.uniform(-3, 3)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < random.uniform(70, 110)] = i + 1
    image = random.normal(40, 4, (height, width)) + 120 * (labels > 0)
    return image.clip(0, 255).astype(np.uint8), labels


def golden_frames(spec: ModelSpec, count: int = 2) -> list[GoldenFrame]:
    """Golden frames without expected labels, all channels alike."""
    out = []
    for i in range(count):
        image, labels = discs(i)
        pixels = np.stack([image] * len(spec.channels))
        out.append(GoldenFrame(f"{i + 1:02d}-discs", pixels, spec.channels, 0.5, "discs", labels, {}))
    return out


def finished(folder: ModelFolder, count: int = 2) -> tuple[ModelFolder, list[GoldenFrame]]:
    """The folder with what its variants reach, and golden frames with what they draw."""
    return expect(folder, golden_frames(folder.spec, count), BundleSection())


def tiny_bundle(where: Path, spec: ModelSpec | None = None, **folder_fields: Any) -> Path:
    """Build a bundle of the tiny network below the folder ``where``; returns the bundle's file."""
    folder, golden = finished(tiny_folder(where / "model", spec or tiny_spec(), **folder_fields))
    return build_bundle(folder, golden, CARD, where / "bundles").path


def unpacked(bundle: Path) -> dict[str, bytes]:
    """The files of a bundle by name."""
    return {name: read_span(bundle, span) for name, span in index(bundle, ArchiveLimits()).items()}


def repacked(files: dict[str, bytes], target: Path) -> Path:
    """Pack files as they are."""
    target.write_bytes(pack(files))
    return target


def described(files: dict[str, bytes], change: Callable[[dict[str, Any]], object] = lambda _: None) -> dict[str, bytes]:
    """The files with a bundle.json that fits them (sizes, digests, variants), changed afterwards."""
    manifest = json.loads(files[MANIFEST])
    manifest["files"] = {
        name: {"sha256": sha256_hex(data), "bytes": len(data)} for name, data in files.items() if name != MANIFEST
    }
    for variant in manifest["variants"]:
        variant["sha256"] = sha256_hex(files[variant["file"]])
    change(manifest)
    return {**files, MANIFEST: canonical_bytes(manifest)}
