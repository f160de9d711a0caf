"""Optimising a model folder: the gate, what is written, and what goes wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cellfleet.bundle import ModelFolder
from cellfleet.config.model import DataSection, OptimizeSection
from cellfleet.data import DataSetVersion, freeze
from cellfleet.errors import ConfigError, OptimizeError, SegmentError, StorageError
from cellfleet.metrics import match, numbers_of
from cellfleet.optimize import MeasuredVariant, judge, load_record, optimize
from cellfleet.optimize.measure import Measured, measure
from cellfleet.optimize.run import INT8
from cellfleet.ports import FixedClock, silent
from cellfleet.runtime.engines import Floats, make_engine
from cellfleet.runtime.loader import load_segmenter
from support_images import plain_rows, write_folder
from support_onnx import tiny_folder
from support_unet import unet_folder, unet_onnx

SECTION = OptimizeSection(calibration_frames=4)
BOTH = ["onnxruntime/fp32", "onnxruntime/int8", "openvino/fp32", "openvino/int8"]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DataSetVersion:
    root = tmp_path_factory.mktemp("optimize")
    write_folder(root / "data", plain_rows(12))
    return freeze(DataSection(source="data"), root)


def by_name(results: list[MeasuredVariant]) -> dict[str, MeasuredVariant]:
    return {r.name: r for r in results}


def names(path: Path) -> list[str]:
    return sorted(v.name for v in ModelFolder.load(path).variants)


def test_variants_that_pass_stay_load_and_agree(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model")
    steps: list[tuple[int, int, str]] = []
    results = optimize(folder, version, SECTION, lambda *step: steps.append(step))
    found = by_name(results)
    assert sorted(found) == BOTH == names(folder.path)
    assert all(r.kept for r in results)
    assert results[0].name == "onnxruntime/fp32"
    assert results[0].reason == "the reference"
    assert found["onnxruntime/int8"].bytes == found["openvino/int8"].bytes == folder.file(INT8).stat().st_size
    total = 4 + len(version.split("validation"))
    assert steps[-1][:2] == (total, total)
    assert [s[0] for s in steps] == sorted(s[0] for s in steps)
    frame = version.load_frame(version.split("validation")[0])
    loaded = ModelFolder.load(folder.path)
    wanted = load_segmenter(loaded, "onnxruntime/fp32").segment(frame).labels
    assert wanted.max() == 4
    for name in BOTH:
        labels = load_segmenter(loaded, name).segment(frame).labels
        assert numbers_of([match(wanted, labels)]).ap50 == 1.0


def test_the_caller_keeps_a_folder_that_is_up_to_date(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model")
    optimize(folder, version, SECTION)
    assert folder.model == ModelFolder.load(folder.path).model
    assert folder.variants[0].name == "onnxruntime/fp32"


def test_a_variant_that_loses_too_much_is_dropped_with_the_numbers(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model", outlier=3000.0)
    found = by_name(optimize(folder, version, SECTION))
    for name in ("onnxruntime/int8", "openvino/int8"):
        assert not found[name].kept
        assert found[name].reason == "loses 1.000 AP@0.5 (1.000 -> 0.000); the limit is 0.010"
    assert names(folder.path) == ["onnxruntime/fp32", "openvino/fp32"]
    assert not folder.file(INT8).exists()


def test_the_allowance_decides(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model", outlier=3000.0)
    results = optimize(folder, version, SECTION.model_copy(update={"max_ap50_loss": 1.0}))
    assert all(r.kept for r in results)


@pytest.mark.parametrize(
    ("ap50", "kept", "reason"),
    [
        (0.70, True, "loses 0.010 AP@0.5 (0.710 -> 0.700); the limit is 0.010"),
        (0.6999, False, "loses 0.010100 AP@0.5 (0.710000 -> 0.699900); the limit is 0.010000"),
        (0.687, False, "loses 0.023 AP@0.5 (0.710 -> 0.687); the limit is 0.010"),
        (0.71, True, "the same AP@0.5 as fp32 (0.710)"),
        (0.73, True, "gains 0.020 AP@0.5 (0.710 -> 0.730)"),
    ],
)
def test_judge(ap50: float, kept: bool, reason: str) -> None:
    assert judge(ap50, 0.71, 0.01) == (kept, reason)


def test_optimising_again_replaces_what_was_there(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model")
    optimize(folder, version, SECTION)
    before = folder.file("model.json").read_bytes()
    optimize(ModelFolder.load(folder.path), version, SECTION)
    assert folder.file("model.json").read_bytes() == before
    again = ModelFolder.load(folder.path)
    results = optimize(again, version, SECTION.model_copy(update={"int8": False, "openvino": False}))
    assert [r.name for r in results] == ["onnxruntime/fp32"] == names(folder.path)
    assert not folder.file(INT8).exists()


def test_two_folders_get_the_same_bytes(version: DataSetVersion, tmp_path: Path) -> None:
    one, two = unet_folder(tmp_path / "one"), unet_folder(tmp_path / "über 2" / "two")
    for folder in (one, two):
        optimize(folder, version, SECTION)
    for name in ("model.json", INT8):
        assert one.file(name).read_bytes() == two.file(name).read_bytes()


def test_the_record_holds_settings_frames_numbers_and_times(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model")
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    results = optimize(folder, version, SECTION, clock=FixedClock(at))
    record = load_record(folder)
    assert record["variants"] == json.loads(json.dumps([asdict(r) for r in results]))
    assert record["data_set"] == version.digest
    assert record["settings"] == json.loads(SECTION.model_dump_json())
    assert set(record["frames"]["calibration"]) <= {e.id for e in version.split("train")}
    assert record["frames"]["validation"] == [e.id for e in version.split("validation")]
    assert record["time"] == "2026-01-02T03:04:05+00:00"
    assert record["files"] == {v.name: v.sha256 for v in folder.variants}
    assert b"ms_per_frame" not in folder.file("model.json").read_bytes()


def test_a_record_that_is_absent_or_damaged(tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model")
    with pytest.raises(OptimizeError, match="not optimised yet"):
        load_record(folder)
    folder.file("optimization.json").write_bytes(b'{"variants": [')
    with pytest.raises(OptimizeError, match="cannot be read"):
        load_record(folder)


def test_without_openvino_its_variants_are_named_but_not_added(
    version: DataSetVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as on a machine where it is not installed
    folder = unet_folder(tmp_path / "model")
    found = by_name(optimize(folder, version, SECTION))
    for name in ("openvino/fp32", "openvino/int8"):
        assert found[name].reason == "not measured: the engine openvino is not installed"
        assert (found[name].kept, found[name].ap50, found[name].ms_per_frame) == (False, None, None)
    assert names(folder.path) == ["onnxruntime/fp32", "onnxruntime/int8"]


def test_a_network_that_cannot_be_converted_is_dropped_with_the_reason(version: DataSetVersion, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")  # it has no convolution between normalisation and heads
    found = by_name(optimize(folder, version, SECTION))
    assert "cannot be converted: the network has no convolution" in found["onnxruntime/int8"].reason
    assert found["openvino/int8"].bytes is None
    assert names(folder.path) == ["onnxruntime/fp32", "openvino/fp32"]


def test_a_wrong_name_of_a_node_is_an_error_and_changes_nothing(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model")
    before = folder.file("model.json").read_bytes()
    with pytest.raises(ConfigError, match="'nothing-like-it'"):
        optimize(folder, version, SECTION.model_copy(update={"keep_fp32": ("nothing-like-it",)}))
    assert folder.file("model.json").read_bytes() == before


def test_ctrl_c_that_a_library_made_an_error_of_is_heeded(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model")

    def interrupted(_done: int, _total: int, _note: str) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as e:  # what pybind11 does while a library is being loaded
            raise ImportError("initialization failed") from e

    with pytest.raises(KeyboardInterrupt):
        optimize(folder, version, SECTION, interrupted)
    assert names(folder.path) == ["onnxruntime/fp32"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_frames_are_needed(version: DataSetVersion, tmp_path: Path, split: str) -> None:
    rest = DataSetVersion.make([e for e in version.entries if e.split != split], version.root)
    folder = unet_folder(tmp_path / "model")
    word = "training" if split == "train" else split
    with pytest.raises(OptimizeError, match=f"no {word} frames"):
        optimize(folder, rest, SECTION)
    assert names(folder.path) == ["onnxruntime/fp32"]


def test_the_reference_is_needed(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model").without_variant("onnxruntime/fp32")
    with pytest.raises(OptimizeError, match="no variant onnxruntime/fp32"):
        optimize(folder, version, SECTION)


def test_a_folder_that_cannot_be_written_keeps_its_model(version: DataSetVersion, tmp_path: Path) -> None:
    folder = unet_folder(tmp_path / "model")
    (folder.file(INT8) / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"int8\.onnx"):
        optimize(folder, version, SECTION)
    assert names(folder.path) == ["onnxruntime/fp32"]
    assert not list(folder.path.rglob("*.part*"))


class Broken:
    """An engine that gives no numbers."""

    name = "onnxruntime"
    version = "0"

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        del mean, std
        return dict.fromkeys(("foreground", "distance"), np.full((1, 1, *image.shape[2:]), np.nan, np.float32))


def test_an_engine_that_fails_is_left_out_but_the_reference_must_work(version: DataSetVersion, tmp_path: Path) -> None:
    spec = unet_folder(tmp_path / "model").spec
    sound = make_engine("onnxruntime", unet_onnx())
    entries = version.split("validation")
    seen: dict[str, Measured] = measure(spec, {"a": sound, "b": Broken()}, version, entries, silent)
    assert seen["a"].failure == ""
    assert len(seen["a"].milliseconds) == len(entries)
    assert "not numbers" in seen["b"].failure
    assert entries[0].id in seen["b"].failure
    with pytest.raises(SegmentError, match="not numbers"):
        measure(spec, {"b": Broken(), "a": sound}, version, entries, silent)
