"""Calibration data: which frames, and that the network sees them as in the runtime."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cellfleet.config.model import DataSection
from cellfleet.data import DataSetVersion, Frame, freeze
from cellfleet.errors import OptimizeError, SegmentError
from cellfleet.optimize.calibration import TILE_PX, FrameReader, choose_frames, network_inputs
from support_images import plain_rows, write_folder
from support_onnx import tiny_spec


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DataSetVersion:
    root = tmp_path_factory.mktemp("calibration")
    write_folder(root / "data", plain_rows(20))
    return freeze(DataSection(source="data"), root)


def frame(pixels: NDArray[np.uint8] | NDArray[np.uint16], pixel_size_um: float | None = None) -> Frame:
    return Frame(pixels, ("phase",), pixel_size_um, {}, "a test")


def test_training_frames_of_every_stratum(version: DataSetVersion) -> None:
    train = version.split("train")
    chosen = choose_frames(version, 4)
    assert len(chosen) == 4
    assert {e.stratum for e in chosen} == {"A", "B"}
    assert {e.split for e in chosen} == {"train"}
    assert sorted(e.id for e in choose_frames(version, 999)) == [e.id for e in train]
    assert choose_frames(version, 4) == chosen


def test_no_training_frames(version: DataSetVersion) -> None:
    rest = DataSetVersion.make([e for e in version.entries if e.split != "train"], version.root)
    with pytest.raises(OptimizeError, match="no training frames"):
        choose_frames(rest, 4)


def test_whole_frames_are_given_raw_with_their_moments() -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (1, 33, 47), np.uint16)
    inputs = network_inputs(tiny_spec(), frame(pixels))
    assert inputs["image"].dtype == np.float32
    np.testing.assert_array_equal(inputs["image"], pixels[None].astype(np.float32))
    np.testing.assert_allclose(inputs["mean"], [[pixels.mean()]], rtol=1e-6)
    np.testing.assert_allclose(inputs["std"], [[pixels.std()]], rtol=1e-6)


def test_frames_are_resampled_to_the_model_grid_and_large_ones_give_one_tile() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 60), np.uint8)
    spec = tiny_spec(target_pixel_size_um=1.0, demands_pixel_size=True)
    assert network_inputs(spec, frame(pixels, 0.5))["image"].shape == (1, 1, 20, 30)
    large = np.random.default_rng(0).integers(0, 256, (1, 3 * TILE_PX, 50), np.uint8)
    inputs = network_inputs(tiny_spec(), frame(large))
    assert inputs["image"].shape == (1, 1, TILE_PX + 2 * tiny_spec().halo_px, 50)
    np.testing.assert_allclose(inputs["mean"], [[large.mean()]], rtol=1e-6)
    with pytest.raises(SegmentError, match="pixel size is unknown"):
        network_inputs(spec, frame(pixels))


def test_the_reader_gives_ranges_and_tells_progress(version: DataSetVersion) -> None:
    seen: list[tuple[int, int, str]] = []
    entries = choose_frames(version, 3)
    reader = FrameReader(tiny_spec(), version, entries, lambda *step: seen.append(step), 10)
    assert len(reader) == 3
    reader.set_range(1, 3)
    first, second = reader.get_next(), reader.get_next()
    assert first is not None
    assert second is not None
    assert reader.get_next() is None
    np.testing.assert_array_equal(first["image"][0], version.load_frame(entries[1]).pixels.astype(np.float32))
    assert [s[:2] for s in seen] == [(1, 10), (2, 10)]
    assert entries[1].id in seen[0][2]
