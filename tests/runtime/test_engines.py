"""Engines behind one interface, and the choice between variants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cellfleet.bundle import ModelFolder
from cellfleet.bundle.spec import Variant
from cellfleet.config.model import SegmentSection
from cellfleet.data import Frame
from cellfleet.errors import EngineError, SegmentError, StorageError
from cellfleet.ports import FixedClock
from cellfleet.runtime import Segmenter, load_segmenter, make_engine
from cellfleet.runtime.choose import Choice, fastest, pinned
from cellfleet.runtime.engines import Engine, Floats
from cellfleet.runtime.objects import frame_moments
from support_bundle import discs
from support_onnx import FP32, tiny_folder, tiny_onnx, tiny_spec
from support_unet import unet_onnx

SHA = "a" * 64


def variant(name: str) -> Variant:
    engine, _, precision = name.partition("/")
    return Variant.model_validate({"engine": engine, "precision": precision, "file": FP32, "sha256": SHA})


def test_engines_agree() -> None:
    image, _ = discs(0)
    mean, std = frame_moments(image[None])
    inputs = (image[None, None].astype(np.float32), mean[None], std[None])
    engines = [make_engine(name, unet_onnx(), 1) for name in ("onnxruntime", "openvino")]
    ort, openvino = (engine.run(*inputs) for engine in engines)
    assert list(ort) == ["foreground", "distance"]
    for name in ort:
        assert np.abs(ort[name] - openvino[name]).max() < 1e-4
    masks = [Segmenter(tiny_spec(), e).segment(Frame(image[None], ("phase",))).labels for e in engines]
    assert masks[0].max() == masks[1].max() == 6
    assert (masks[0] != masks[1]).mean() < 0.001


def test_a_result_of_openvino_stays_as_it_is() -> None:
    engine = make_engine("openvino", tiny_onnx(), 1)
    moments = (np.full((1, 1), 50, np.float32), np.full((1, 1), 20, np.float32))
    first = engine.run(np.full((1, 1, 8, 8), 200, np.float32), *moments)
    kept = first["foreground"].copy()
    engine.run(np.zeros((1, 1, 12, 8), np.float32), *moments)
    assert np.array_equal(first["foreground"], kept), "a result must not change with the next frame"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_file_that_is_no_network_is_refused(engine: str) -> None:
    with pytest.raises(EngineError, match=f"{engine} cannot load the network"):
        make_engine(engine, b"no network", 1)


def test_wrong_inputs_are_the_engine_s_error() -> None:
    with pytest.raises(EngineError, match="cannot run the network"):
        make_engine("onnxruntime", tiny_onnx(2), 1).run(
            np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
        )


def test_without_a_gpu_tensorrt_says_what_it_needs() -> None:
    import onnxruntime

    if {"TensorrtExecutionProvider", "CUDAExecutionProvider"} & set(onnxruntime.get_available_providers()):
        pytest.skip("this ONNX Runtime has a GPU provider")
    with pytest.raises(EngineError, match="needs an ONNX Runtime for NVIDIA GPUs"):
        make_engine("tensorrt", tiny_onnx(), 1)


class Slow:
    """An engine that takes a fixed time by a clock of its own."""

    name = "onnxruntime"

    def __init__(self, clock: FixedClock, seconds: float, version: str = "1") -> None:
        self.clock, self.seconds, self.version, self.runs = clock, seconds, version, 0

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        del image, mean, std
        self.clock.elapsed_s += self.seconds
        self.runs += 1
        return {}


class Race:
    """Variants with known speeds."""

    def __init__(self, cache: Path, **seconds: float) -> None:
        self.clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.cache = cache
        self.engines = {name.replace("_", "/"): Slow(self.clock, s) for name, s in seconds.items()}

    def load(self, one: Variant) -> Engine:
        if self.engines[one.name].seconds < 0:
            raise EngineError(f"the engine {one.engine} is not installed", hint="install it")
        return self.engines[one.name]

    def choose(self, sha256: str = SHA) -> Choice:
        variants: Sequence[Variant] = [variant(name) for name in self.engines]
        return fastest(tiny_spec(), variants, self.load, model_sha256=sha256, cache=self.cache, clock=self.clock)


def test_the_fastest_is_taken_and_says_why(tmp_path: Path) -> None:
    race = Race(tmp_path, onnxruntime_fp32=0.05, onnxruntime_int8=0.02, openvino_fp32=0.03)
    choice = race.choose()
    assert choice.variant.name == "onnxruntime/int8"
    assert choice.reason == (
        "onnxruntime/int8 is the fastest here: onnxruntime/int8 20 ms, openvino/fp32 30 ms, onnxruntime/fp32 50 ms"
    )
    assert choice.milliseconds["openvino/fp32"] == pytest.approx(30)


def test_speeds_are_measured_once_for_a_model_and_its_engines(tmp_path: Path) -> None:
    race = Race(tmp_path, onnxruntime_fp32=0.05, openvino_fp32=0.03)
    first = race.choose()
    runs = race.engines["openvino/fp32"].runs
    assert race.choose() == first
    assert race.engines["openvino/fp32"].runs == runs > 1
    race.choose("b" * 64)
    assert race.engines["openvino/fp32"].runs == 2 * runs, "another model"
    race.engines["openvino/fp32"].version = "2"
    race.choose()
    assert race.engines["openvino/fp32"].runs == 3 * runs, "another version of an engine"
    for file in tmp_path.iterdir():
        file.write_text("damaged")
    assert race.choose().variant == first.variant


def test_an_engine_that_is_not_installed_is_passed_over_and_named(tmp_path: Path) -> None:
    choice = Race(tmp_path, onnxruntime_fp32=0.05, openvino_fp32=-1).choose()
    assert choice.variant.name == "onnxruntime/fp32"
    assert choice.reason.endswith("openvino/fp32 not used: the engine openvino is not installed")
    with pytest.raises(EngineError, match=r"no variant of the model runs here: .*not installed"):
        Race(tmp_path, openvino_fp32=-1).choose()


def test_speeds_that_cannot_be_remembered_are_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    race = Race(tmp_path / "file", onnxruntime_fp32=0.05, openvino_fp32=0.03)
    assert race.choose().variant.name == "openvino/fp32"
    assert "measured again next time" in caplog.text


def test_a_named_variant_is_taken_or_refused_with_the_known_ones() -> None:
    variants = [variant("onnxruntime/fp32"), variant("openvino/fp32")]
    assert pinned(variants, "openvino/fp32").reason == "openvino/fp32: chosen by the user"
    with pytest.raises(EngineError, match="no variant 'openvino/int8'") as e:
        pinned(variants, "openvino/int8")
    assert e.value.hint == "it has: onnxruntime/fp32, openvino/fp32"


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "model")


def test_everything_that_decides_a_mask_changes_the_run_digest(folder: ModelFolder, tmp_path: Path) -> None:
    def digest(settings: SegmentSection | None = None, **decisive: object) -> str:
        loaded = load_segmenter(folder, None, settings, decisive=decisive, cache=tmp_path)
        assert loaded.origin is not None
        return loaded.origin.run_digest

    plain = digest()
    assert digest() == plain
    assert digest(SegmentSection(threads=1)) == plain, "threads do not change a mask"
    assert digest(pixel_size_um=0.5) != plain
    assert digest(SegmentSection(tile_px=256)) != plain


def test_a_network_that_was_changed_is_not_run(folder: ModelFolder) -> None:
    folder.file(FP32).write_bytes(tiny_onnx(gain=-6.0))
    with pytest.raises(SegmentError, match="is not the file that the model's description names"):
        load_segmenter(folder, "onnxruntime/fp32")
    folder.file(FP32).unlink()
    with pytest.raises(StorageError, match="cannot read"):
        load_segmenter(folder, "onnxruntime/fp32")
