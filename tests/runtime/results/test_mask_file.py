"""The mask as a file, its metadata, outlines and overlay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellfleet.data import read_image, read_mask
from cellfleet.errors import ReadError, StorageError
from cellfleet.runtime.objects import compact_labels, measure_objects
from cellfleet.runtime.results.contours import contours_geojson
from cellfleet.runtime.results.mask_file import labels_digest, read_mask_metadata, write_mask
from cellfleet.runtime.results.overlay import MAX_SIDE_PX, overlay_png
from support_bundle import discs

FACTS: dict[str, Any] = {
    "run_digest": "d" * 64,
    "source": "Zelle 細胞.tif",
    "time_s": 1.5,
    "settings": {"tile_px": 2048},
}


def many(count: int) -> NDArray[np.uint32]:
    """``count`` objects of one pixel."""
    labels = np.zeros((600, 600), np.uint32)
    at = np.flatnonzero((np.arange(600)[:, None] % 2 == 0) & (np.arange(600)[None] % 2 == 0))[:count]
    labels.ravel()[at] = np.arange(1, count + 1)
    return labels


def test_a_mask_tells_where_it_comes_from(tmp_path: Path) -> None:
    labels = discs(0)[1].astype(np.uint32)
    file = tmp_path / "masks" / "Zelle 細胞.tif"
    write_mask(file, labels, FACTS, 0.65)
    assert np.array_equal(read_mask(file), labels)
    said = read_mask_metadata(file)
    assert said == {**FACTS, "labels_sha256": labels_digest(labels.astype("<u2"))}
    assert read_image(file).pixel_size_um == pytest.approx(0.65, rel=1e-5)
    with tifffile.TiffFile(file) as tif:
        assert tif.pages.first.dtype == np.uint16
        assert tif.pages.first.compression.name == "ADOBE_DEFLATE"
    write_mask(tmp_path / "again.tif", labels, FACTS, 0.65)
    assert (tmp_path / "again.tif").read_bytes() == file.read_bytes()
    write_mask(file, labels, FACTS, None)
    assert read_image(file).pixel_size_um is None


def test_70_000_objects_need_32_bits(tmp_path: Path) -> None:
    labels = many(70_000)
    write_mask(tmp_path / "m.tif", labels, FACTS, None)
    assert tifffile.imread(tmp_path / "m.tif").dtype == np.uint32
    assert np.array_equal(read_mask(tmp_path / "m.tif"), labels)
    assert compact_labels(many(65_535)).dtype == np.uint16


def test_other_tiffs_say_nothing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((4, 4), np.uint16))
    with pytest.raises(ReadError, match="says nothing of where it comes from"):
        read_mask_metadata(tmp_path / "plain.tif")
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(ReadError, match="cannot be read as TIFF"):
        read_mask_metadata(tmp_path / "text.tif")
    with pytest.raises(ReadError, match="cannot be read as TIFF"):
        read_mask_metadata(tmp_path / "absent.tif")
    newer = json.dumps({"cellfleet_mask": 2, "run_digest": "d"})
    tifffile.imwrite(tmp_path / "new.tif", np.zeros((4, 4), np.uint16), description=newer, metadata=None)
    with pytest.raises(ReadError, match="newer cellfleet"):
        read_mask_metadata(tmp_path / "new.tif")


def test_a_mask_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("a file is in the way")
    with pytest.raises(StorageError, match="masks"):
        write_mask(tmp_path / "masks" / "x.tif", many(3), FACTS, None)
    assert [p.name for p in tmp_path.iterdir()] == ["masks"]


def shapes(seed: int) -> NDArray[np.uint32]:
    """Random touching objects with holes, in several parts, of one pixel, at the border."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 5, (14, 17)).astype(np.uint8)
    labels = cv2.resize(coarse, (85, 70), interpolation=cv2.INTER_NEAREST).astype(np.uint32)
    labels[random.random(labels.shape) < 0.05] = 0
    labels[3, 4] = 5
    _, dense = np.unique(labels, return_inverse=True)
    return dense.reshape(labels.shape).astype(np.uint32)


@pytest.mark.parametrize("seed", range(4))
def test_outlines_drawn_again_give_the_mask(seed: int) -> None:
    labels = shapes(seed)
    plane = np.zeros(labels.shape, np.uint8)
    raw = measure_objects(labels, plane, np.zeros(labels.shape, np.uint16))
    table = {"id": np.arange(1, int(labels.max()) + 1), **raw}
    found = json.loads(contours_geojson(labels, table, {"run_digest": "d"}))
    assert found["cellfleet"] == {"run_digest": "d", "height": 70, "width": 85, "units": "px"}
    assert [f["id"] for f in found["features"]] == list(range(1, int(labels.max()) + 1))
    drawn = np.zeros(labels.shape, np.uint32)
    for feature in found["features"]:
        geometry = feature["geometry"]
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        for polygon in polygons:
            for ring in polygon:
                assert ring[0] == ring[-1]
                assert len(ring) >= 4
            drawn[inside(polygon, labels.shape)] = feature["id"]
    assert np.array_equal(drawn, labels)


def inside(polygon: list[list[list[float]]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels whose centre lies in a polygon with holes, by the even-odd rule: independent of the drawing library."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    odd = np.zeros(shape, np.bool_)
    for ring in polygon:
        for (x0, y0), (x1, y1) in zip(ring[:-1], ring[1:], strict=True):
            if y0 != y1:
                crosses = (y0 <= y) != (y1 <= y)
                odd ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return odd


def decoded(data: bytes) -> NDArray[Any]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture)


def test_an_overlay_shows_every_object_in_a_colour_of_its_own() -> None:
    image, labels = discs(2)
    picture = decoded(overlay_png(image, labels.astype(np.uint32)))
    assert picture.shape == (72 * 8, 96 * 8, 3), "small frames are enlarged by a whole factor"
    big = labels.repeat(8, 0).repeat(8, 1)
    coloured = picture.max(axis=2).astype(int) - picture.min(axis=2) > 60
    assert not coloured[big == 0].any(), "nothing is drawn outside the objects"
    colours = [tuple(np.median(picture[coloured & (big == i)], axis=0)) for i in range(1, 7)]
    assert len(set(colours)) == 6


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_overlays_of_odd_frames(dtype: str) -> None:
    none = np.zeros((1, 1), np.uint32)
    assert decoded(overlay_png(np.full((1, 1), 9, dtype), none)).shape == (8, 8, 3)
    wide = np.zeros((3, 9000), np.uint32)
    assert decoded(overlay_png(np.zeros((3, 9000), dtype), wide)).shape == (1, MAX_SIDE_PX, 3)
