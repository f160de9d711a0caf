"""Validation: every case of the issue is found, named, and told apart as error or warning."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellfleet.config.model import DataSection
from cellfleet.data import validate
from cellfleet.data.annotations.objects import check_objects
from cellfleet.data.findings import Finding
from cellfleet.errors import DataError
from support_images import plain_rows, scene, write_folder, write_png, write_tiff

IMAGE, LABELS = scene(0)


def check(root: Path, **settings: object) -> list[Finding]:
    return validate(DataSection.model_validate({"source": str(root), **settings}), root)


def test_a_clean_data_set_has_no_findings_and_tells_its_progress(tmp_path: Path) -> None:
    write_folder(tmp_path, plain_rows())
    seen: list[tuple[int, int, str]] = []
    assert validate(DataSection(source="."), tmp_path, lambda *a: seen.append(a)) == []
    assert seen[-1] == (9, 9, "f8")


def _cut(root: Path) -> None:
    file = root / "images" / "f1.tif"
    file.write_bytes(file.read_bytes()[:600])


def _pieces(root: Path) -> None:
    labels = LABELS.copy()
    labels[30:40, 50:60] = 1
    write_png(root / "masks" / "f1.png", labels)


def _fragment(root: Path) -> None:
    labels = LABELS.copy()
    labels[0, 0] = 9
    write_png(root / "masks" / "f1.png", labels)


def _two_splits(root: Path) -> None:
    splits = ["train", "validation", "test"]
    rows = [{**r, "split": splits[i % 3]} for i, r in enumerate(plain_rows())]
    write_folder(root, [{k: v for k, v in r.items() if k != "stratum"} for r in rows])
    write_tiff(root / "images" / "f1.tif", IMAGE)


CASES: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "shape": (lambda r: write_png(r / "masks/f1.png", LABELS[:-1]), "error", "shape", "masks/f1.png"),
    "image of one value": (
        lambda r: write_tiff(r / "images/f1.tif", np.full_like(IMAGE, 7)),
        "warning",
        "blank",
        "images/f1.tif",
    ),
    "mask of floats": (
        lambda r: write_tiff(r / "masks/f1.png", LABELS.astype(np.float32)),
        "error", "unreadable-mask", "masks/f1.png",
    ),
    "binary mask": (
        lambda r: write_png(r / "masks/f1.png", (LABELS > 0).astype(np.uint8) * 255),
        "error", "unreadable-mask", "masks/f1.png",
    ),
    "image of floats": (
        lambda r: write_tiff(r / "images/f1.tif", IMAGE.astype(np.float32)), "error", "unreadable", "images/f1.tif",
    ),
    "truncated image": (_cut, "error", "unreadable", "images/f1.tif"),
    "missing mask": (lambda r: (r / "masks/f1.png").unlink(), "error", "missing-mask", "images/f1"),
    "orphan mask": (lambda r: write_png(r / "masks/x.png", LABELS), "error", "orphan-mask", "masks/x.png"),
    "empty mask": (lambda r: write_png(r / "masks/f1.png", LABELS * 0), "warning", "empty-mask", "masks/f1.png"),
    "pieces": (_pieces, "warning", "pieces", "masks/f1.png"),
    "fragment": (_fragment, "warning", "fragment", "masks/f1.png"),
    "other dtype": (
        lambda r: write_tiff(r / "images/f1.tif", scene(77)[0].astype(np.uint16)), "warning", "unequal-dtype", "f1",
    ),
    "duplicate": (lambda r: write_tiff(r / "images/f1.tif", IMAGE), "warning", "duplicate", "f1"),
    "leak": (_two_splits, "error", "leak", "f1"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(CASES))
def test_every_case_is_one_line_with_file_and_what_to_do(tmp_path: Path, case: str) -> None:
    make, level, code, file = CASES[case]
    write_folder(tmp_path, plain_rows())
    make(tmp_path)
    findings = check(tmp_path)
    assert [(f.level, f.code, f.file) for f in findings] == [(level, code, file)]
    line = str(findings[0])
    assert "\n" not in line
    assert line.startswith(f"{level}: {file}: ")
    assert findings[0].what_to_do in line


def test_errors_come_first(tmp_path: Path) -> None:
    write_folder(tmp_path, plain_rows())
    _fragment(tmp_path)
    (tmp_path / "masks" / "f8.png").unlink()
    assert [f.level for f in check(tmp_path)] == ["error", "warning"]


def test_named_splits_must_be_whole_and_not_cut_groups(tmp_path: Path) -> None:
    rows = [{**r, "split": ["train", "val", "test"][i % 3]} for i, r in enumerate(plain_rows(strata=("A",)))]
    rows[1]["group"] = rows[0]["group"]
    rows[8]["split"] = ""
    write_folder(tmp_path, rows)
    assert [(f.code, f.file) for f in check(tmp_path)] == [("split", "f8"), ("straddle", "g0")]


def test_a_stratum_that_cannot_be_everywhere_is_explained(tmp_path: Path) -> None:
    write_folder(tmp_path, [{**r, "stratum": "rare" if i < 2 else "A"} for i, r in enumerate(plain_rows())])
    found = check(tmp_path)
    assert [f.code for f in found] == ["stratum"]
    assert "'rare' is not in validation" in found[0].message


def test_unknown_pixel_size_is_told_once(tmp_path: Path) -> None:
    write_folder(tmp_path, [{"file": f"f{i}"} for i in range(4)])
    assert [f.code for f in check(tmp_path)] == ["pixel-size"]
    assert check(tmp_path, pixel_size_um=0.5) == []


def test_nothing_masks_only_and_too_little(tmp_path: Path) -> None:
    (tmp_path / "a" / "images").mkdir(parents=True)
    (tmp_path / "a" / "masks").mkdir()
    assert [f.code for f in check(tmp_path / "a")] == ["no-images"]
    write_folder(tmp_path / "b", plain_rows())
    shutil.rmtree(tmp_path / "b" / "images")
    (only,) = check(tmp_path / "b")  # one cause, one line, however many masks and rows there are
    assert (only.code, only.message) == ("no-images", "there is no folder images/")
    with pytest.raises(DataError, match="no folder images/"):
        check(tmp_path)
    write_folder(tmp_path / "c", plain_rows(2))
    assert [f.code for f in check(tmp_path / "c")] == ["split"]


def test_objects_of_every_label() -> None:
    labels = np.zeros((20, 20), np.uint32)
    labels[1:5, 1:5] = 4_000_000_000
    labels[10:14, 1:5] = 7
    labels[10:14, 10:14] = 7
    labels[18, 18] = 3
    found = check_objects(labels, 10)
    assert (found.count, found.pieces, found.small, found.fragments) == (3, (7,), (3,), ())
    labels[10:14, 10:14] = 0
    labels[12, 12] = 7
    assert check_objects(labels, 10).fragments == (7,)
    diagonal = np.eye(12, dtype=np.uint32)
    assert check_objects(diagonal, 1).pieces == ()
    assert check_objects(np.ones((3, 3), np.uint32), 1).count == 1


def test_seventy_thousand_objects_take_no_whole_image_loop() -> None:
    size = 4
    y, x = np.mgrid[: 250 * size, : 280 * size]
    labels = ((y // size) * 280 + x // size + 1).astype(np.uint32)
    labels[(y % size == 0) | (x % size == 0)] = 0
    # Looking through the whole image once per object would take far longer than a test may.
    assert check_objects(labels, 10).count == 70_000


def test_real_images_are_validated_in_seconds(shared_data: Path) -> None:
    section = DataSection(source=str(shared_data / "usiigaci_phase"))
    findings = validate(section, shared_data)
    # SOURCE.md: overlaps are flattened, so a few cells have two parts; nothing else is wrong.
    assert {(f.level, f.code) for f in findings} == {("warning", "pieces")}
    nuclei = validate(DataSection(source=str(shared_data / "dsb2018_fluo")), shared_data)
    assert {(f.level, f.code) for f in nuclei} == {("warning", "pieces"), ("warning", "pixel-size")}
