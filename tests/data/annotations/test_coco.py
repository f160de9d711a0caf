"""COCO annotations: polygons, both kinds of RLE, overlaps, and files that make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cellfleet.config.model import DataSection
from cellfleet.data import DataSetVersion, freeze, validate
from cellfleet.data.annotations.coco import CocoFile
from cellfleet.data.annotations.coco_shapes import decode_counts, patch_of
from cellfleet.errors import DataError, ReadError
from support_images import scene, square, write_coco, write_png, write_tiff

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=17))


def paint(annotation: dict[str, Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    image = np.zeros(shape, np.bool_)
    patch = patch_of(annotation, shape, "here")
    patch.of(image)[...] = patch.mask
    return image


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_rle_of_both_kinds_comes_back(mask: NDArray[np.bool_]) -> None:
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = packed["counts"].decode()
    size = list(mask.shape)
    np.testing.assert_array_equal(paint({"segmentation": {"size": size, "counts": text}}, mask.shape), mask)
    runs = decode_counts(text, "here")
    np.testing.assert_array_equal(paint({"segmentation": {"size": size, "counts": runs}}, mask.shape), mask)
    # Empty runs between two runs of one object are allowed in uncompressed RLE.
    split = [part for r in runs for part in ((r // 2, 0, r - r // 2) if r > 1 else (r,))]
    np.testing.assert_array_equal(paint({"segmentation": {"size": size, "counts": split}}, mask.shape), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under NumPy 2
@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(-10, 50), min_size=6, max_size=12).filter(lambda p: len(p) % 2 == 0), min_size=1))
def test_polygons_fill_the_same_pixels_as_pycocotools_on_the_whole_image(polygons: list[list[float]]) -> None:
    whole = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 30, 40))).astype(bool)
    found = paint({"segmentation": polygons}, (30, 40))
    # Within the box the corners are shifted by whole pixels, so only the rounding of a float's last bits may differ.
    assert np.count_nonzero(found != whole) <= 2


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=30), st.lists(st.integers(-5, 500), max_size=9), st.none(), st.integers()))
def test_any_counts_give_pixels_or_a_read_error(counts: Any) -> None:
    try:
        mask = paint({"segmentation": {"size": [7, 9], "counts": counts}}, (7, 9))
    except ReadError as e:
        assert e.message.startswith("here")  # noqa: PT017 - the other outcome is checked below
    else:
        assert mask.shape == (7, 9)


def _parse(value: Any, path: Path = Path("a.json")) -> CocoFile:
    return CocoFile.parse(json.dumps(value).encode(), path)


def test_the_smaller_object_is_on_top_and_overlap_is_counted() -> None:
    image = {"id": 1, "file_name": "a.tif", "height": 20, "width": 30}
    big, small = square(2, 2, 12), square(8, 8, 4)
    for first, second in ((big, small), (small, big)):
        file = _parse(
            {
                "images": [image],
                "annotations": [
                    {"id": 7, "image_id": 1, "segmentation": first},
                    {"id": 8, "image_id": 1, "segmentation": second},
                ],
            }
        )
        painted = file.rasterise(1)
        small_label = 1 if first is small else 2
        assert painted.labels[10, 10] == small_label
        assert painted.labels[3, 3] == 3 - small_label
        assert painted.overlap_px == int((painted.labels == small_label).sum()) == 16
        assert painted.annotations == 2


def test_hidden_objects_crowds_and_orphans_are_counted() -> None:
    image = {"id": 1, "file_name": "a.tif", "height": 20, "width": 30}
    same = {"image_id": 1, "segmentation": square(2, 2, 5)}
    outside = {"id": "far", "image_id": 1, "segmentation": square(200, 200, 5)}
    crowd = {"id": 3, "image_id": 1, "iscrowd": 1, "segmentation": {"size": [20, 30], "counts": [600]}}
    orphan = {"id": 4, "image_id": 99, "segmentation": square(1, 1, 3)}
    file = _parse({"images": [image], "annotations": [{"id": 1, **same}, {"id": 2, **same}, outside, crowd, orphan]})
    painted = file.rasterise(1)
    assert (painted.hidden, painted.crowds, file.orphans) == (("1", "far"), 1, ("4",))
    with pytest.raises(DataError, match="no image with the id"):
        file.rasterise(99)


def test_livecell_keeps_annotations_in_a_dictionary() -> None:
    image = {"id": 1, "file_name": "A172_1.tif", "height": 20, "width": 30, "original_filename": "A172_1.png"}
    file = _parse({"images": [image], "annotations": {"5": {"id": 5, "image_id": 1, "segmentation": square(2, 2, 5)}}})
    assert file.rasterise(1).labels.max() == 1


IMAGE = {"id": 1, "file_name": "a.tif", "height": 20, "width": 30}


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ([], "not a COCO file"),
        ({"images": 5}, "not a COCO file"),
        ({"images": [5]}, "not a list of objects"),
        ({"images": [{**IMAGE, "height": -1}]}, "height and width"),
        ({"images": [{**IMAGE, "height": 10**6, "width": 10**6}]}, "limit"),
        ({"images": [{"id": 1}]}, "without id or file_name"),
        ({"images": [IMAGE, IMAGE]}, "same id"),
        ({"images": [IMAGE], "annotations": [{"id": 1, "image_id": [1]}]}, "image_id"),
    ],
)
def test_files_that_make_no_sense(value: Any, word: str) -> None:
    with pytest.raises(ReadError, match=word):
        _parse(value)


@pytest.mark.parametrize(
    "segmentation",
    [None, [], [[1, 2, 3]], [[1, 2, 3, 4, 5, "x"]], [[1, 2, 3, 4, 5, 1e9]], {"size": [3, 3], "counts": [9]}, {}],
)
def test_annotations_that_make_no_sense_are_named(segmentation: Any) -> None:
    file = _parse({"images": [IMAGE], "annotations": [{"id": 77, "image_id": 1, "segmentation": segmentation}]})
    with pytest.raises(ReadError, match="annotation 77"):
        file.rasterise(1)


def test_a_truncated_file() -> None:
    with pytest.raises(ReadError, match="truncated or not valid JSON"):
        CocoFile.parse(b'{"images": [', Path("a.json"))


def _data_set(root: Path) -> Path:
    images, annotations = [], []
    for i in range(6):
        pixels, _ = scene(i)
        write_tiff(root / "images" / ("A172" if i % 2 else "BV2") / f"f{i}.tif", pixels)
        stratum = "A172" if i % 2 else "BV2"
        images.append(
            {"id": i, "file_name": f"f{i}.tif", "height": 48, "width": 64, "group": f"well{i}", "stratum": stratum}
        )
        annotations.append({"id": 10 * i, "image_id": i, "segmentation": square(5, 5, 20)})
        annotations.append({"id": 10 * i + 1, "image_id": i, "segmentation": square(20, 10, 10)})
    path: Path = write_coco(root / "annotations.json", images, annotations)
    return path


def test_a_coco_data_set_is_validated_frozen_and_read(tmp_path: Path) -> None:
    _data_set(tmp_path)
    section = DataSection(source="annotations.json", images="images", pixel_size_um=1.2)
    findings = validate(section, tmp_path)
    assert {(f.level, f.code) for f in findings} == {("warning", "overlap")}
    version = freeze(section, tmp_path)
    assert {e.split for e in version.entries if e.stratum == "BV2"} == {"train", "validation", "test"}
    version.save(tmp_path / "dataset.json")
    loaded = DataSetVersion.load(tmp_path / "dataset.json")
    assert loaded.digest == version.digest
    entry = loaded.entries[0]
    assert (entry.group, entry.objects, entry.pixel_size_um) == ("well0", 2, 1.2)
    assert loaded.load_frame(entry).pixels.shape == (1, 48, 64)
    assert set(np.unique(loaded.load_mask(entry))) == {0, 1, 2}
    write_coco(tmp_path / "annotations.json", [], [])
    with pytest.raises(DataError, match="changed since it was frozen"):
        DataSetVersion.load(tmp_path / "dataset.json").load_mask(entry)


def test_coco_faults_are_findings(tmp_path: Path) -> None:
    file = _data_set(tmp_path)
    value = json.loads(file.read_text())
    value["images"].append({"id": 50, "file_name": "gone.tif", "height": 4, "width": 4})
    value["images"].append({"id": 51, "file_name": "f0.tif", "height": 48, "width": 64})
    value["annotations"][0]["segmentation"] = [[1, 2]]
    value["annotations"].append({"id": 999, "image_id": 12345, "segmentation": square(1, 1, 3)})
    value["images"][3]["height"] = 40
    file.write_text(json.dumps(value))
    write_png(tmp_path / "images" / "extra.png", scene(1)[0])
    findings = validate(DataSection(source=str(file), images="images", pixel_size_um=1), tmp_path)
    codes = {f.code for f in findings if f.level == "error"}
    assert codes == {"missing-image", "same-name", "unreadable-mask", "orphan-mask", "shape"}
