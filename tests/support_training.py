"""A tiny data set of drawn discs and the settings of a tiny training run."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellfleet.bundle.spec import Head
from cellfleet.canonical import digest_of
from cellfleet.config.model import DataSection, TrainingSection
from cellfleet.data import DataSetVersion
from cellfleet.data.freeze import freeze
from cellfleet.lineage.state import ProjectState
from support_bundle import discs
from support_images import write_png, write_tiff

PROJECT = ProjectState(None, None)
ENVIRONMENT = digest_of({"tests": platform.python_version()})
SECTION = TrainingSection(
    epochs=4,
    validate_every=1,
    batch_size=4,
    crop_px=32,
    crops_per_image=2,
    learning_rate=1e-2,
    features=(8, 16, 32),
    residual_units=1,
    threads=1,
)


def section(**changes: Any) -> TrainingSection:
    """The tiny settings with changes, checked as a project file's are."""
    return TrainingSection.model_validate({**SECTION.model_dump(), **changes})


def tiny_data(
    root: Path,
    *,
    images: int = 16,
    channels: Sequence[str] = ("phase",),
    pixel_size_um: float | None = 0.5,
    size: tuple[int, int] = (72, 96),
) -> DataSetVersion:
    """Write images of discs, two of every group, two strata, and freeze them."""
    rows = []
    for i in range(images):
        image, labels = discs(i, *size)
        if i % 2:
            image = image // 2 + 20
        wide = np.stack([image, *[image // 2 + c for c in range(1, len(channels))]]) if len(channels) > 1 else image
        write_tiff(root / "images" / f"f{i:02d}.tif", wide)
        write_png(root / "masks" / f"f{i:02d}.png", labels)
        rows.append({"file": f"f{i:02d}.tif", "group": f"g{i % 2}-{i // 4}", "stratum": "AB"[i % 2]})
    with (root / "index.csv").open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, ["file", "group", "stratum"])
        writer.writeheader()
        writer.writerows(rows)
    data = DataSection(
        source=os.fspath(root),
        channels=tuple(channels),
        pixel_size_um=pixel_size_um,
        validation_fraction=0.2,
        test_fraction=0.2,
    )
    return freeze(data, root)


def two_classes() -> tuple[Head, ...]:
    """The two usual heads and one of two classes."""
    return (
        Head(name="foreground", kind="foreground"),
        Head(name="distance", kind="distance"),
        Head(name="kind", kind="classes", classes=("background", "cell")),
    )
