"""Small image files, data set folders and COCO files for tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray


def scene(seed: int, height: int = 48, width: int = 64, cells: int = 4) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """A grey image [H, W] uint8 of discs on noise, and its labels [H, W] uint16 numbered 1..cells."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint16)
    for i in range(cells):
        cy, cx = 8 + (height - 16) * (i % 2), (i + 0.5) * width / cells
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 30] = i + 1
    image = random.integers(60, 90, (height, width)) + 80 * (labels > 0)
    return image.astype(np.uint8), labels


def write_png(path: Path, pixels: NDArray[Any]) -> Path:
    """Write [H, W] or [H, W, 3] (red, green, blue) as PNG, whatever letters the path has."""
    fine, data = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    assert fine
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())
    return path


def write_tiff(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write a TIFF with tifffile's options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(path, pixels, **options)
    return path


def write_folder(root: Path, rows: Sequence[Mapping[str, str]], *, index: bool = True) -> Path:
    """Write images/, masks/ and index.csv; every row needs ``file``, scenes are seeded by the row's number."""
    for seed, row in enumerate(rows):
        image, labels = scene(seed)
        name = Path(row["file"]).with_suffix("").as_posix()
        write_tiff(root / "images" / f"{name}.tif", image)
        write_png(root / "masks" / f"{name}.png", labels)
    if index:
        names = list(dict.fromkeys(k for row in rows for k in row))
        with (root / "index.csv").open("w", encoding="utf-8", newline="") as f:
            writer = csv.DictWriter(f, names, restval="")
            writer.writeheader()
            writer.writerows(rows)
    return root


def plain_rows(count: int = 9, strata: Sequence[str] = ("A", "B")) -> list[dict[str, str]]:
    """Rows of index.csv: one group per image, strata in turn, a known pixel size."""
    return [
        {"file": f"f{i}.tif", "group": f"g{i}", "stratum": strata[i % len(strata)], "pixel_size_um": "0.5"}
        for i in range(count)
    ]


def write_coco(path: Path, images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> Path:
    """Write a COCO annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": list(images), "annotations": list(annotations)}), encoding="utf-8")
    return path


def square(x0: float, y0: float, side: float) -> list[list[float]]:
    """A square as a COCO polygon."""
    return [[x0, y0, x0 + side, y0, x0 + side, y0 + side, x0, y0 + side]]
