"""From frame to maps and objects: tiles, sizes, pixel types, pixel sizes, channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cellfleet.bundle.spec import Head
from cellfleet.data import Frame
from cellfleet.errors import EngineError, ReadError, SegmentError
from cellfleet.runtime import Segmenter, make_engine
from cellfleet.runtime.engines import Engine, Floats
from cellfleet.runtime.objects import frame_moments, threshold_of
from cellfleet.runtime.segmenter import majority_class
from support_bundle import discs
from support_onnx import HEADS, tiny_onnx, tiny_spec
from support_unet import unet_onnx


def segmenter(*, tile_px: int = 2048, channels: tuple[str, ...] = ("phase",), **fields: Any) -> Segmenter:
    engine = make_engine("onnxruntime", tiny_onnx(len(channels)), 1)
    return Segmenter(tiny_spec(channels=channels, **fields), engine, tile_px=tile_px)


def phase(pixels: NDArray[Any], pixel_size_um: float | None = None) -> Frame:
    return Frame(pixels[None] if pixels.ndim == 2 else pixels, ("phase",), pixel_size_um, {}, "a frame")


def mosaic(height: int, width: int) -> NDArray[np.uint8]:
    """Discs, uneven light, one frame without repetition."""
    tile = np.tile(discs(0)[0], (height // 72 + 1, width // 96 + 1))[:height, :width].astype(np.float64)
    y, x = np.mgrid[:height, :width]
    light = 0.7 + 0.3 * np.sin(y / 90) * np.cos(x / 70)
    return np.asarray(np.clip(tile * light, 0, 255), np.uint8)


@pytest.mark.parametrize("shape", [(301, 407), (64, 1000), (513, 512)])
@pytest.mark.parametrize("network", ["box", "convolutions"])
def test_tiles_give_the_mask_of_the_whole_frame(shape: tuple[int, int], network: str) -> None:
    engine = make_engine("onnxruntime", tiny_onnx() if network == "box" else unet_onnx(), 1)
    frame = phase(mosaic(*shape))
    whole = Segmenter(tiny_spec(), engine).maps(frame)
    tiled = Segmenter(tiny_spec(), engine, tile_px=96).maps(frame)
    assert whole.foreground is not None
    assert whole.distance is not None
    assert np.array_equal(whole.foreground, tiled.foreground)  # type: ignore[arg-type]
    assert np.array_equal(whole.distance, tiled.distance)  # type: ignore[arg-type]
    masks = [Segmenter(tiny_spec(), engine, tile_px=t).segment(frame).labels for t in (4096, 96, 130)]
    assert masks[0].max() > 20
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])


def test_tiles_without_halo_would_not() -> None:
    engine = make_engine("onnxruntime", tiny_onnx(), 1)
    frame = phase(mosaic(301, 407))
    whole = Segmenter(tiny_spec(), engine).maps(frame)
    tiled = Segmenter(tiny_spec(halo_px=0), engine, tile_px=96).maps(frame)
    assert not np.array_equal(whole.distance, tiled.distance)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (63, 65), (72, 96)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_any_size_gives_a_mask_of_that_size(shape: tuple[int, int], dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255 if dtype == "uint8" else 65535, shape).astype(dtype)
    result = segmenter().segment(phase(pixels))
    assert result.labels.shape == shape
    assert result.labels.dtype == np.uint32
    assert result.count == int(result.labels.max()) == len(result.table["id"])
    assert 0 <= result.confluence_percent <= 100


def test_discs_are_found_and_measured() -> None:
    image, truth = discs(3)
    result = segmenter().segment(phase(image, 0.5))
    assert result.count == 6
    areas = np.bincount(result.labels.ravel())[1:]
    assert result.table["area_px"].tolist() == areas.tolist()
    assert np.allclose(result.table["area_um2"], areas * 0.25)
    assert result.per_mm2 == pytest.approx(6 / (image.size * 0.25e-6))
    assert result.confluence_percent == pytest.approx(100 * (truth > 0).mean(), abs=3)
    assert (result.table["mean_intensity"] > 100).all()
    assert list(result.timings_ms) == ["prepare", "network", "resample", "objects", "measure", "watch", "total"]
    assert result.run_digest == ""


def test_the_same_scene_in_16_bits_gives_the_same_mask() -> None:
    image, _ = discs(1)
    eight = segmenter().segment(phase(image)).labels
    sixteen = segmenter().segment(phase(image.astype(np.uint16) * 256)).labels
    assert np.array_equal(eight, sixteen)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_frame_is_empty_and_flagged(value: int) -> None:
    result = segmenter().segment(phase(np.full((40, 50), value, np.uint8)))
    assert result.count == 0
    assert result.confluence_percent == 0
    names = {flag.name for flag in result.flags}
    assert "blank" in names
    assert ("saturated" in names) == (value == 255)


def test_another_pixel_size_is_resampled_and_measured_on_the_frame_s_own_grid() -> None:
    image, _ = discs(2, 144, 192)
    model = segmenter(target_pixel_size_um=1.0, demands_pixel_size=True)
    own = model.segment(phase(image, 1.0))
    half = model.segment(phase(np.kron(image, np.ones((2, 2), np.uint8)), 0.5))
    assert half.labels.shape == (288, 384)
    assert own.count == half.count == 6
    assert np.allclose(np.sort(half.table["area_um2"]), np.sort(own.table["area_um2"]), rtol=0.12)
    near = model.segment(phase(image, 1.015))
    assert np.array_equal(near.labels, own.labels), "within 2 % nothing is resampled"


class Recorder:
    """An engine that keeps what it is given and answers every head with one value per pixel of its grid."""

    name, version = "recorder", "1"

    def __init__(self, **values: NDArray[Any]) -> None:
        self.values = values
        self.seen: list[tuple[Floats, Floats, Floats]] = []

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        self.seen.append((image, mean, std))
        return {name: np.asarray(value, np.float32) for name, value in self.values.items()}


def test_the_network_sees_the_moments_of_the_frame_on_the_model_s_grid() -> None:
    """Training normalises by them, too (train/samples.py)."""
    frame = phase((np.indices((6, 8)).sum(0) % 2 * 200).astype(np.uint8), 0.5)
    flat = np.zeros((1, 1, 3, 4))
    engine = Recorder(foreground=flat, distance=flat)
    Segmenter(tiny_spec(target_pixel_size_um=1.0, demands_pixel_size=True), engine).maps(frame)
    ((image, mean, std),) = engine.seen
    assert image.shape == (1, 1, 3, 4)
    assert mean[0, 0] == np.float32(image.mean())
    assert std[0, 0] == pytest.approx(image.std(), rel=1e-6)
    assert std[0, 0] < 0.5 * frame.pixels.std()


def test_a_frame_that_is_coarser_than_the_model_s_grid_is_resampled_too() -> None:
    flat = np.zeros((1, 1, 6, 8))
    engine = Recorder(foreground=flat, distance=flat)
    maps = Segmenter(tiny_spec(target_pixel_size_um=1.0, demands_pixel_size=True), engine).maps(
        phase(np.arange(12, dtype=np.uint8).reshape(3, 4), 2.0)
    )
    assert engine.seen[0][0].shape == (1, 1, 6, 8)
    assert maps.foreground is not None
    assert (maps.foreground.shape, maps.scale) == ((3, 4), 0.5)


def test_classes_on_another_grid_are_those_at_pixel_centres() -> None:
    head = Head(name="kind", kind="classes", classes=("a", "b", "c"))
    spec = tiny_spec(heads=(*HEADS, head), target_pixel_size_um=1.0, demands_pixel_size=True)
    winners = np.array([[0, 2, 0]])
    kinds = (np.arange(3)[:, None, None] == winners[None]).astype(np.float32)[None]
    flat = np.zeros((1, 1, 1, 3))
    maps = Segmenter(spec, Recorder(foreground=flat, distance=flat, kind=kinds)).maps(
        phase(np.zeros((2, 5), np.uint8), 0.6)
    )
    assert maps.classes is not None
    assert maps.classes.tolist() == [[0, 0, 2, 0, 0]] * 2, "indices are not averaged"
    assert maps.scale == pytest.approx(1 / 0.6)


def test_object_parameters_are_scaled_to_the_frame_s_grid() -> None:
    """36 pixels of 1 um on the model's grid are 144 of 0.5 um: an object of 100 of these is too small."""
    spec = tiny_spec(target_pixel_size_um=1.0, demands_pixel_size=True)
    distance = np.zeros((1, 1, 10, 10))
    distance[..., 2:7, 2:7] = 1
    counts = []
    for least in (25, 36):
        objects = spec.objects.model_copy(update={"min_area_px": least})
        model = Segmenter(
            spec.model_copy(update={"objects": objects}), Recorder(foreground=distance, distance=distance)
        )
        counts.append(model.segment(phase(np.arange(400).reshape(20, 20).astype(np.uint16), 0.5)).count)
    assert counts == [1, 0]


def test_a_pixel_at_the_threshold_is_covered_in_any_row() -> None:
    """Confluence is counted in bands of rows."""
    level = np.float32(threshold_of(0.5)) / 65535
    foreground = np.zeros((1, 1, 600, 4), np.float32)
    foreground[0, 0, 300:, :] = level
    model = Segmenter(tiny_spec(), Recorder(foreground=foreground, distance=foreground * 0))
    frame = phase(np.arange(2400).reshape(600, 4).astype(np.uint16))
    assert model.segment(frame).confluence_percent == 50.0


def test_an_unknown_pixel_size_is_refused_assumed_or_left_open() -> None:
    image, _ = discs(2)
    with pytest.raises(SegmentError, match="its pixel size is unknown and the model tiny demands it"):
        segmenter(target_pixel_size_um=1.0, demands_pixel_size=True).segment(phase(image))
    assumed = segmenter(training_pixel_size_um=0.5).segment(phase(image))
    assert assumed.pixel_size_um == 0.5
    assert [flag.name for flag in assumed.flags] == ["pixel-size-assumed"]
    unknown = segmenter().segment(phase(image))
    assert [flag.name for flag in unknown.flags] == ["pixel-size-unknown"]
    assert unknown.per_mm2 is None
    assert np.isnan(unknown.table["area_um2"]).all()


def test_an_absurd_pixel_size_is_refused_before_memory_is_taken() -> None:
    model = segmenter(target_pixel_size_um=0.001, demands_pixel_size=True)
    with pytest.raises(SegmentError, match="on the model's grid"):
        model.segment(phase(discs(0)[0], 50.0))


def test_channels_are_taken_by_name_and_missing_ones_named() -> None:
    image, _ = discs(4)
    pixels = np.stack([image // 3, image])
    model = segmenter(channels=("phase", "green"))
    swapped = model.segment(Frame(pixels, ("green", "phase"), None, {}, "x.tif"))
    straight = model.segment(Frame(pixels[::-1].copy(), ("phase", "green"), None, {}, "x.tif"))
    assert np.array_equal(swapped.labels, straight.labels)
    assert np.allclose(swapped.table["mean_intensity"], straight.table["mean_intensity"])
    assert (swapped.table["mean_intensity_green"] < swapped.table["mean_intensity"]).all()
    with pytest.raises(SegmentError, match="needs the channel green; the frame has phase"):
        model.segment(phase(image))


def test_float_pixels_are_refused() -> None:
    with pytest.raises(ReadError, match="float32"):
        phase(np.zeros((4, 4), np.float32))


def test_moments_are_those_of_numpy() -> None:
    image, _ = discs(5)
    mean, std = frame_moments(image[None])
    assert mean[0] == np.float32(image.mean())
    assert std[0] == pytest.approx(image.std(), rel=1e-6)


class Answers:
    """An engine that answers what it is told."""

    name, version = "told", "1"

    def __init__(self, **outputs: Floats) -> None:
        self.outputs = outputs

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        del image, mean, std
        return self.outputs


def test_a_network_that_does_not_keep_its_promises_is_refused() -> None:
    right = np.zeros((1, 1, 8, 8), np.float32)
    frame = phase(np.arange(64, dtype=np.uint8).reshape(8, 8))
    told: Engine = Answers(foreground=right)
    with pytest.raises(EngineError, match="'distance' is absent"):
        Segmenter(tiny_spec(), told).maps(frame)
    with pytest.raises(EngineError, match=r"of shape \(1, 1, 4, 4\)"):
        Segmenter(tiny_spec(), Answers(foreground=right, distance=right[:, :, :4, :4])).maps(frame)
    with pytest.raises(SegmentError, match="not numbers"):
        Segmenter(tiny_spec(), Answers(foreground=right, distance=right * np.nan)).maps(frame)


def test_a_model_without_distance_head_cuts_no_objects() -> None:
    model = Segmenter(tiny_spec(heads=HEADS[:1]), make_engine("onnxruntime", tiny_onnx(), 1))
    with pytest.raises(SegmentError, match="has no distance head"):
        model.segment(phase(discs(0)[0]))


def test_objects_get_the_class_of_most_of_their_pixels() -> None:
    head = Head(name="kind", kind="classes", classes=("cell", "debris"))
    spec = tiny_spec(heads=(*HEADS, head))
    image, _ = discs(0)
    maps = make_engine("onnxruntime", tiny_onnx(), 1).run(image[None, None].astype(np.float32), *_moments(image))
    kinds = np.zeros((1, 2, *image.shape), np.float32)
    kinds[0, 1, :, : image.shape[1] // 2] = 1.0
    kinds[0, 0, :, image.shape[1] // 2 :] = 1.0
    result = Segmenter(spec, Answers(**maps, kind=kinds)).segment(phase(image))
    left = result.table["centroid_x_px"] < image.shape[1] / 2
    assert (result.table["class"][left] == "debris").all()
    assert (result.table["class"][~left] == "cell").sum() >= 2


def test_of_equally_frequent_classes_the_first_counts() -> None:
    labels = np.array([[1, 1, 2, 2]], np.uint32)
    classes = np.array([[1, 0, 1, 1]], np.uint8)
    assert majority_class(labels, classes, 2, 2).tolist() == [0, 1]


def test_classes_are_counted_in_every_row() -> None:
    labels = np.repeat(np.arange(1, 601, dtype=np.uint32)[:, None], 3, axis=1)
    classes = np.tile((np.arange(600) % 3).astype(np.uint8)[:, None], (1, 3))
    assert majority_class(labels, classes, 600, 3).tolist() == [i % 3 for i in range(600)]


def _moments(image: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    mean, std = frame_moments(image[None])
    return mean[None], std[None]


def test_real_cells_in_tiles(shared_data: Path) -> None:
    from cellfleet.data import read_image

    file = sorted((shared_data / "usiigaci_phase" / "images").glob("*.tif"))[0]
    frame = read_image(file, channels=["phase"])
    engine = make_engine("onnxruntime", unet_onnx(), 1)
    whole, tiled = (Segmenter(tiny_spec(), engine, tile_px=t).segment(frame) for t in (2048, 300))
    assert whole.count > 50
    assert np.array_equal(whole.labels, tiled.labels)
