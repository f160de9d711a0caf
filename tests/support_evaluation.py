"""A small data set version of drawn discs, and evaluations with numbers of one's choice."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellfleet.config.model import DataSection
from cellfleet.data import DataSetVersion, freeze
from cellfleet.evaluate.evaluation import Evaluation, FrameResult
from cellfleet.metrics import FrameScore, Numbers, Summary
from support_bundle import discs
from support_images import write_png, write_tiff


def disc_data(root: Path, count: int = 10, first_seed: int = 0) -> DataSetVersion:
    """Freeze ``count`` frames of discs in two strata, written below ``root``/data; saved as ``root``/dataset.json."""
    folder = root / "data"
    rows = []
    for i in range(count):
        image, labels = discs(first_seed + i)
        write_tiff(folder / "images" / f"f{i:02d}.tif", image)
        write_png(folder / "masks" / f"f{i:02d}.png", labels)
        rows.append([f"f{i:02d}.tif", f"g{i}", "AB"[i % 2], "0.5"])
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([["file", "group", "stratum", "pixel_size_um"], *rows])
    version = freeze(DataSection(source="data", test_fraction=0.4, validation_fraction=0.2), root)
    version.save(root / "dataset.json")
    return version


def numbers(**fields: Any) -> Numbers:
    """Numbers that pass every gate, with some fields changed."""
    base: dict[str, Any] = {
        "frames": 2, "true": 10, "predicted": 10, "ap50": 0.9, "map": 0.8, "ap": {"0.50": 0.9, "0.95": 0.3},
        "precision": 0.95, "recall": 0.95, "f1": 0.95, "mean_iou": 0.85, "dice": 0.95, "iou": 0.9,
        "count_error": 0.02, "confluence_error": 0.5,
    }  # fmt: skip
    return Numbers(**(base | fields))


def evaluation(overall: Numbers | None = None, strata: Mapping[str, Numbers] | None = None) -> Evaluation:
    """An evaluation of two frames with these numbers."""
    overall = overall or numbers()
    score = FrameScore(5, 5, (5,) * 10, 4.5, 100, 100, 95, 1000)
    frames = tuple(FrameResult(i, "A", 20, 50, score, overall, {"total": 10.0}) for i in ("a", "b"))
    return Evaluation("d" * 64, "test", frames, Summary(overall, strata or {"A": overall}), {"total": 10.0})
