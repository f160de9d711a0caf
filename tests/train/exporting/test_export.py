"""Export: the graph contract, equal to PyTorch, the same bytes everywhere, nothing that names a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from cellfleet.bundle import ModelFolder, build_bundle, check_onnx, open_bundle
from cellfleet.bundle.validity import check_description, check_test_tensors
from cellfleet.config.model import ModelSection, SegmentSection
from cellfleet.data import DataSetVersion, Frame
from cellfleet.errors import TrainError
from cellfleet.metrics import match, numbers_of
from cellfleet.runtime.engines import make_engine
from cellfleet.runtime.loader import load_segmenter
from cellfleet.runtime.objects import frame_moments
from cellfleet.runtime.segmenter import Segmenter
from cellfleet.train import TrainingRun, train
from cellfleet.train.exporting.export import FP32, Exported, export
from cellfleet.train.exporting.parity import prove_parity
from cellfleet.train.state import load_network
from support_bundle import CARD, discs, finished
from support_training import ENVIRONMENT, PROJECT, section, tiny_data, two_classes

PORTABLE = "portable.onnx"


def session(folder: ModelFolder, name: str) -> ort.InferenceSession:
    return ort.InferenceSession(folder.file(name).read_bytes(), providers=["CPUExecutionProvider"])


def frame(pixels: NDArray[np.uint8] | NDArray[np.uint16], channels: tuple[str, ...] = ("phase",)) -> Frame:
    return Frame(pixels, channels, 0.5, {}, "drawn")


def test_the_model_folder(exported: Exported, run: TrainingRun, data: DataSetVersion) -> None:
    folder = ModelFolder.load(exported.folder.path)
    spec = folder.spec
    assert (spec.name, spec.version, spec.channels, spec.stride) == ("discs", "0.1.0", ("phase",), 4)
    assert spec.halo_px % 4 == 0
    assert (spec.objects, spec.target_pixel_size_um, spec.training_pixel_size_um) == (run.objects, 0.5, 0.5)
    assert (folder.lineage.data_set, folder.lineage.training_run) == (data.digest, run.digest)
    assert [v.name for v in folder.variants] == ["onnxruntime/fp32"]
    assert folder.model.reference["columns"]["count"] == [6.0] * 7
    assert {"mean_phase", "std_phase", "confluence_percent", "object_area_um2"} <= set(
        folder.model.reference["columns"]
    )


def test_the_graph_contract(exported: Exported) -> None:
    folder = exported.folder
    check_onnx(folder.file(FP32).read_bytes(), folder.spec)
    check_onnx(folder.file(PORTABLE).read_bytes(), folder.spec, portable=True)
    contract = session(folder, FP32)
    assert [(i.name, i.shape, i.type) for i in contract.get_inputs()] == [
        ("image", ["N", 1, "H", "W"], "tensor(float)"),
        ("mean", ["N", 1], "tensor(float)"),
        ("std", ["N", 1], "tensor(float)"),
    ]
    assert [(o.name, o.shape) for o in contract.get_outputs()] == [
        ("foreground", ["N", 1, "H", "W"]),
        ("distance", ["N", 1, "H", "W"]),
    ]
    assert [i.name for i in session(folder, PORTABLE).get_inputs()] == ["image"]


def test_parity_was_proved_on_the_hard_cases(exported: Exported) -> None:
    cases = " ".join(p.case for p in exported.parity)
    for word in ("1 x 1", "odd size", "8 bit", "16 bit", "constant, black", "constant, 65535", "three frames"):
        assert word in cases
    assert max(max(p.contract, p.portable) for p in exported.parity) < 1e-4


def test_parity_is_refused_for_another_network(exported: Exported, run: TrainingRun, run_dir: Path) -> None:
    network = load_network(run_dir / "best.pt", 1, run.section, run.heads)
    with torch.no_grad():
        network.top.weight += 0.01
    contract, portable = (exported.folder.file(n).read_bytes() for n in (FP32, PORTABLE))
    with pytest.raises(TrainError, match="differs from PyTorch"):
        prove_parity(network, contract, portable, 1)


@pytest.mark.parametrize(
    ("shape", "dtype", "low", "high"),
    [
        ((1, 1, 1, 1), np.uint8, 7, 8), ((1, 1, 1, 33), np.uint8, 0, 256), ((1, 1, 61, 37), np.uint8, 0, 256),
        ((3, 1, 40, 52), np.uint16, 0, 65536), ((2, 1, 19, 23), np.uint16, 65000, 65536), ((2, 1, 30, 30), np.uint16, 999, 1000),
    ],
)  # fmt: skip
def test_the_portable_form_needs_no_moments(
    exported: Exported, shape: tuple[int, ...], dtype: type[np.uint8] | type[np.uint16], low: int, high: int
) -> None:
    frames = np.random.default_rng(0).integers(low, high, shape).astype(dtype)
    moments = [frame_moments(f) for f in frames]
    image = frames.astype(np.float32)
    mean, std = np.stack([m for m, _ in moments]), np.stack([s for _, s in moments])
    one = session(exported.folder, FP32).run(None, {"image": image, "mean": mean, "std": std})
    other = session(exported.folder, PORTABLE).run(None, {"image": image})
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape == (shape[0], 1, *shape[2:])
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_several_frames_are_as_each_alone(exported: Exported) -> None:
    images = np.stack([discs(i)[0][None] for i in range(3)]).astype(np.float32)
    portable = session(exported.folder, PORTABLE)
    together = portable.run(None, {"image": images})
    for i in range(3):
        for a, b in zip(portable.run(None, {"image": images[i : i + 1]}), together, strict=True):
            np.testing.assert_allclose(a[0], b[i], rtol=0, atol=1e-5)


def test_tiles_give_the_maps_of_the_whole_frame(exported: Exported) -> None:
    folder = exported.folder
    pixels = np.concatenate([np.concatenate([discs(3 * i + j)[0] for j in range(3)], 1) for i in range(4)])[
        None, :283, :281
    ]
    engine = make_engine("onnxruntime", folder.file(FP32).read_bytes(), 1)
    whole = Segmenter(folder.spec, engine).segment(frame(pixels))
    maps = Segmenter(folder.spec, engine).maps(frame(pixels))
    for tile_px in (64, 100):
        tiled = Segmenter(folder.spec, engine, tile_px=tile_px)
        found = tiled.maps(frame(pixels))
        assert maps.foreground is not None
        assert found.foreground is not None
        assert np.array_equal(found.foreground, maps.foreground)
        assert np.array_equal(found.distance, maps.distance)  # type: ignore[arg-type]
        assert (tiled.segment(frame(pixels)).labels == whole.labels).all()
    assert whole.count > 50
    blind = Segmenter(folder.spec.model_copy(update={"halo_px": 0}), engine, tile_px=64).maps(frame(pixels))
    assert not np.array_equal(blind.foreground, maps.foreground)  # type: ignore[arg-type]


def test_it_finds_the_discs_of_the_test_split(exported: Exported, data: DataSetVersion) -> None:
    segmenter = load_segmenter(exported.folder, "onnxruntime/fp32", SegmentSection(threads=1))
    scores = [
        match(data.load_mask(e), segmenter.segment(data.load_frame(e)).labels) for e in data.split("test")
    ]  # fmt: skip
    assert numbers_of(scores).ap50 > 0.9


def test_the_same_bytes_from_two_folders(exported: Exported, run: TrainingRun, store: str, tmp_path: Path) -> None:
    copy = tiny_data(tmp_path / "data")
    settings = run.section.model_copy(update={"tracking_uri": store})
    train(copy, settings, tmp_path / "a run", project=PROJECT, environment=ENVIRONMENT)
    again = export(tmp_path / "a run", tmp_path / "here" / "model", ModelSection(name="discs"), copy).folder
    for name in (FP32, PORTABLE, "model.json"):
        assert again.file(name).read_bytes() == exported.folder.file(name).read_bytes()


def test_nothing_names_a_folder_or_a_program_text(exported: Exported, run_dir: Path) -> None:
    folder = exported.folder
    for name in (FP32, PORTABLE, "model.json"):
        raw = folder.file(name).read_bytes()
        for text in (str(run_dir), str(folder.path), sys.prefix, str(Path.cwd()), ".py", "site-packages", "namespace"):
            assert text.encode() not in raw, (name, text)
    model = onnx.load_from_string(folder.file(FP32).read_bytes())
    assert not model.metadata_props
    assert not model.doc_string
    assert not any(n.doc_string or n.metadata_props for n in model.graph.node)
    assert "BatchNormalization" not in {n.op_type for n in model.graph.node}


def test_another_data_set_version(run_dir: Path, tmp_path: Path) -> None:
    other = tiny_data(tmp_path / "data", images=8)
    with pytest.raises(TrainError, match="was trained on the data set version"):
        export(run_dir, tmp_path / "model", ModelSection(), other)
    assert not (tmp_path / "model").exists()


def test_an_unfinished_or_damaged_run(run_dir: Path, data: DataSetVersion, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="no finished training run"):
        export(tmp_path, tmp_path / "model", ModelSection(), data)
    (tmp_path / "training.json").write_bytes((run_dir / "training.json").read_bytes())
    with pytest.raises(TrainError, match="there are no weights"):
        export(tmp_path, tmp_path / "model", ModelSection(), data)
    (tmp_path / "best.pt").write_bytes((run_dir / "best.pt").read_bytes()[:1000])
    with pytest.raises(TrainError, match="holds no weights of this network"):
        export(tmp_path, tmp_path / "model", ModelSection(), data)
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(TrainError, match="not a training record"):
        export(tmp_path, tmp_path / "model", ModelSection(), data)


def test_several_channels_and_classes_up_to_a_bundle(store: str, tmp_path: Path) -> None:
    channels = ("phase", "GFP")
    data = tiny_data(tmp_path / "data", images=8, channels=channels, pixel_size_um=None)
    settings = section(epochs=12, features=(8, 16), tracking_uri=store)
    run = train(data, settings, tmp_path / "run", project=PROJECT, environment=ENVIRONMENT, heads=two_classes())
    assert run.channels == channels
    folder = export(tmp_path / "run", tmp_path / "model", ModelSection(), data).folder
    assert [h.channels for h in folder.spec.heads] == [1, 1, 2]
    assert folder.spec.target_pixel_size_um is None
    segmenter = load_segmenter(folder, "onnxruntime/fp32", SegmentSection(threads=1))
    entry = data.split("validation")[0]
    found = segmenter.segment(data.load_frame(entry))
    assert {"class", "mean_intensity_GFP"} <= set(found.table)
    folder, golden = finished(folder)
    built = build_bundle(folder, golden, CARD, tmp_path)
    assert check_description(built.path)
    opened = open_bundle(built.path)
    assert check_test_tensors(opened) < 1e-5
    outputs = json.loads(opened.read("bioimageio.yaml"))["outputs"]
    assert outputs[2]["axes"][1]["channel_names"] == ["background", "cell"]
