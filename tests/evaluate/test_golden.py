"""Golden frames: chosen by rule from the validation split, with what every variant draws on them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cellfleet.config.model import BundleSection
from cellfleet.data import DataSetVersion
from cellfleet.errors import EvaluateError
from cellfleet.evaluate.golden import choose_golden, expect
from support_onnx import tiny_folder
from support_training import tiny_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSetVersion:
    return tiny_data(tmp_path_factory.mktemp("data"))


def test_the_same_choice_every_time_and_every_stratum(data: DataSetVersion) -> None:
    for count in (1, 2, 3):
        golden = choose_golden(data, BundleSection(golden_frames=count))
        assert len(golden) == max(2, count)
        assert {g.stratum for g in golden} == {"A", "B"}
        again = choose_golden(data, BundleSection(golden_frames=count))
        assert [g.name for g in golden] == [g.name for g in again]
        assert all(re.fullmatch(r"\d\d-[A-Za-z0-9-]+", g.name) for g in golden)


def test_no_more_frames_than_the_split_has(data: DataSetVersion) -> None:
    assert len(choose_golden(data, BundleSection(golden_frames=16))) == len(data.split("validation"))


def test_a_frame_is_a_window_of_a_validation_image(data: DataSetVersion) -> None:
    entries = {e.id: e for e in data.split("validation")}
    for golden in choose_golden(data, BundleSection(golden_frames=2, golden_px=64)):
        entry = entries[golden.name[3:]]
        assert golden.pixels.shape == (1, 64, 64)
        pixels, labels = data.load_frame(entry).pixels, data.load_mask(entry)
        windows = np.lib.stride_tricks.sliding_window_view(pixels[0], (64, 64))
        ((y, x), *_) = np.argwhere((windows == golden.pixels[0]).all((2, 3)))
        assert ((labels[y : y + 64, x : x + 64] > 0) == (golden.truth > 0)).all()
        assert sorted(np.unique(golden.truth)) == list(range(int(golden.truth.max()) + 1))
        assert golden.pixel_size_um == 0.5


def test_no_frame_with_a_cell(data: DataSetVersion) -> None:
    others = DataSetVersion.make(data.split("train"), data.root)
    with pytest.raises(EvaluateError, match="no frame with a cell"):
        choose_golden(others, BundleSection())


def test_what_is_expected_of_a_device(data: DataSetVersion, tmp_path: Path) -> None:
    section = BundleSection(golden_frames=2, golden_px=96, golden_margin_ap50=0.1)
    folder, golden = expect(tiny_folder(tmp_path), choose_golden(data, section), section)
    (variant,) = folder.variants
    assert variant.golden_ap50 == 1
    assert variant.least_golden_ap50 == pytest.approx(0.9)
    for frame in golden:
        drawn = frame.expected["onnxruntime/fp32"]
        assert drawn.shape == frame.truth.shape
        assert drawn.dtype == np.uint16
        assert int(drawn.max()) == 6
    assert tiny_folder(tmp_path).variants[0].golden_ap50 is None


def test_a_network_that_finds_nothing_has_nothing_to_lose(data: DataSetVersion, tmp_path: Path) -> None:
    section = BundleSection(golden_frames=1)
    folder, _ = expect(tiny_folder(tmp_path, level=99), choose_golden(data, section), section)
    assert (folder.variants[0].golden_ap50, folder.variants[0].least_golden_ap50) == (0, 0)
