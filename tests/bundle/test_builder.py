"""Building: the same bytes everywhere, a valid description, test tensors that anybody can reproduce."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from cellfleet.bundle import GoldenFrame, ModelCard, build_bundle, open_bundle
from cellfleet.bundle.builder import bundle_bytes
from cellfleet.bundle.manifest import MANIFEST
from cellfleet.bundle.refusals import BadDescription, HostileModel, UnsafeName
from cellfleet.bundle.spec import Head
from cellfleet.bundle.validity import check_description, check_test_tensors
from cellfleet.canonical import sha256_file, sha256_hex
from cellfleet.errors import BundleError, EngineError, StorageError
from cellfleet.runtime.selftest import self_test
from support_bundle import CARD, described, finished, golden_frames, repacked, tiny_bundle, unpacked
from support_onnx import FP32, tiny_folder, tiny_onnx, tiny_spec


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection is an error."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_two_folders_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "Another place, with spaces and \u5b57")
    assert other.read_bytes() == bundle.read_bytes()


def test_another_process_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib, support_bundle as s; s.tiny_bundle(pathlib.Path(sys.argv[1]))"
    env = {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "4711", "TZ": "Asia/Taipei", "PATH": ""}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=env, timeout=120)
    assert sha256_file(tmp_path / "bundles" / bundle.name) == sha256_file(bundle)


def test_no_folder_is_named_in_it(bundle: Path) -> None:
    raw = bundle.read_bytes()
    assert str(bundle.parent.parent).encode() not in raw
    assert b"/home/" not in raw


def test_what_was_built(bundle: Path, tmp_path: Path) -> None:
    folder, golden = finished(tiny_folder(tmp_path / "model"))
    built = build_bundle(folder, golden, CARD, tmp_path / "out")
    assert built.path.name == "tiny-1.0.0.bundle.zip"
    assert built.sha256 == sha256_file(built.path) == sha256_file(bundle)
    opened = open_bundle(built.path)
    assert opened.lineage == folder.lineage
    assert opened.variants == folder.variants
    assert json.loads(opened.read("reference.json")) == folder.model.reference
    requires = opened.manifest.requires
    assert (requires.engines, requires.channels, requires.pixel_size) == (("onnxruntime",), ("phase",), False)
    assert opened.read("portable.onnx") == tiny_onnx(portable=True)
    card = opened.read("README.md").decode()
    for text in (
        "# tiny 1.0.0",
        "Finds bright discs",
        "Nothing but discs.",
        "Not for diagnosis.",
        folder.lineage.data_set,
    ):
        assert text in card


def test_golden_frames_come_back(bundle: Path) -> None:
    drawn = golden_frames(tiny_spec())
    found = open_bundle(bundle).golden()
    assert [g.name for g in found] == ["01-discs", "02-discs"]
    for a, b in zip(drawn, found, strict=True):
        assert (a.pixels == b.pixels).all()
        assert (a.truth == b.truth).all()
        assert (b.channels, b.pixel_size_um, b.stratum) == (("phase",), 0.5, "discs")
        assert list(b.expected) == ["onnxruntime/fp32"]
        assert int(b.expected["onnxruntime/fp32"].max()) == 6


def test_golden_frames_are_plain_numpy_files(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        image = np.load(io.BytesIO(archive.read("golden/01-discs/image.npy")), allow_pickle=False)
    assert (image.shape, image.dtype) == ((1, 72, 96), np.uint8)


def test_the_bundle_passes_its_own_self_test(bundle: Path) -> None:
    opened = open_bundle(bundle)
    found = self_test(opened, opened.variants[0])
    assert found.passed
    assert (found.ap50, found.agreement, found.least_ap50) == (1.0, 1.0, 0.98)


def test_a_network_that_draws_nonsense_fails_the_self_test(bundle: Path, tmp_path: Path) -> None:
    nonsense = described({**unpacked(bundle), FP32: tiny_onnx(gain=-6.0)})
    opened = open_bundle(repacked(nonsense, tmp_path / "x.bundle.zip"))
    found = self_test(opened, opened.variants[0])
    assert not found.passed
    assert found.ap50 < 0.5 > found.agreement


@pytest.mark.usefixtures("no_network")
def test_the_description_is_valid(bundle: Path) -> None:
    assert check_description(bundle).startswith("0.5.")
    assert json.loads(unpacked(bundle)["bioimageio.yaml"])["weights"]["onnx"]["source"] == "portable.onnx"


@pytest.mark.usefixtures("no_network")
def test_the_description_is_valid_for_unusual_models(tmp_path: Path) -> None:
    spec = tiny_spec(
        "a.b", "1.0.0-rc.1--x", ("GFP", "gfp", "class", "405-nm"), target_pixel_size_um=0.62, training_pixel_size_um=0.5
    )
    path = tiny_bundle(tmp_path, spec)
    assert check_description(path)
    value = json.loads(unpacked(path)["bioimageio.yaml"])
    assert value["version"] == "1.0.0.dev0+rc.1.x"
    assert value["inputs"][0]["axes"][1]["channel_names"] == ["gfp", "gfp_", "c_class", "c_405_nm"]
    assert [a.get("scale") for a in value["outputs"][0]["axes"]] == [None, None, 0.62, 0.62]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(license="my own"), "license"),
        (lambda d: d["weights"]["onnx"].update(sha256="a" * 64), "onnx"),
        (lambda d: d["inputs"][0]["axes"].pop(), "axes|input|test_tensor"),
        (lambda d: d["outputs"][0]["axes"][1]["channel_names"].append("x"), "outputs|shape|channel"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_an_invalid_description_is_refused(bundle: Path, tmp_path: Path, change: Any, said: str) -> None:
    files = unpacked(bundle)
    value = json.loads(files["bioimageio.yaml"])
    change(value)
    path = repacked(described({**files, "bioimageio.yaml": json.dumps(value).encode()}), tmp_path / "x.bundle.zip")
    open_bundle(path)
    with pytest.raises(BadDescription, match=said):
        check_description(path)


def test_anybody_can_reproduce_the_test_tensors(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        value = json.loads(archive.read("bioimageio.yaml"))
        session = ort.InferenceSession(archive.read(value["weights"]["onnx"]["source"]))
        image, *stored = [
            np.load(io.BytesIO(archive.read(d["test_tensor"]["source"]))) for d in (*value["inputs"], *value["outputs"])
        ]
    got = session.run(None, {session.get_inputs()[0].name: image})
    assert len(got) == len(stored) == 2
    for a, b in zip(got, stored, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
        assert b.std() > 0.05
    assert check_test_tensors(open_bundle(bundle)) <= 1e-6


def test_test_tensors_of_another_network(bundle: Path, tmp_path: Path) -> None:
    changed = described({**unpacked(bundle), "portable.onnx": tiny_onnx(level=0.5, portable=True)})
    opened = open_bundle(repacked(changed, tmp_path / "x.bundle.zip"))
    with pytest.raises(HostileModel, match="differs from the test tensors"):
        check_test_tensors(opened)


def test_no_golden_frame(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="at least one golden frame"):
        bundle_bytes(tiny_folder(tmp_path), [], CARD)


def test_a_golden_frame_whose_name_leads_elsewhere(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    frame = golden_frames(folder.spec, 1)[0]
    evil = GoldenFrame("../../evil", frame.pixels, frame.channels, None, "", frame.truth, {})
    with pytest.raises(UnsafeName):
        bundle_bytes(folder, [evil], CARD)


def test_a_file_of_the_model_folder_that_was_changed(tmp_path: Path) -> None:
    folder, golden = finished(tiny_folder(tmp_path))
    folder.file(FP32).write_bytes(tiny_onnx(gain=5.0))
    with pytest.raises(BundleError, match="was changed"):
        bundle_bytes(folder, golden, CARD)


def test_a_model_folder_with_a_network_that_is_not_the_promised_one(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    model = onnx.load_from_string(tiny_onnx())
    model.graph.output[0].name = "other"
    raw = model.SerializeToString()
    folder.file(FP32).write_bytes(raw)
    folder = folder.with_variant(folder.variants[0].model_copy(update={"sha256": sha256_hex(raw)}))
    with pytest.raises(HostileModel, match="outputs"):
        bundle_bytes(folder, golden_frames(folder.spec), CARD)


def test_a_portable_network_that_cannot_run(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    model = onnx.load_from_string(tiny_onnx(portable=True))
    model.graph.node[-1].input[0] = "nowhere"
    raw = model.SerializeToString()
    folder.file("portable.onnx").write_bytes(raw)
    folder.model = folder.model.model_copy(update={"portable_sha256": sha256_hex(raw)})
    with pytest.raises(EngineError, match=r"portable\.onnx cannot be run"):
        bundle_bytes(folder, golden_frames(folder.spec), CARD)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    folder, golden = finished(tiny_folder(tmp_path / "model"))
    (tmp_path / "out").write_text("a file is in the way")
    with pytest.raises(StorageError):
        build_bundle(folder, golden, CARD, tmp_path / "out")


def test_a_card_without_words(tmp_path: Path) -> None:
    folder, golden = finished(tiny_folder(tmp_path / "model"))
    built = build_bundle(folder, golden, ModelCard("", "MIT", ("unnamed",), ""), tmp_path)
    assert "Instance segmentation of cells in phase images" in unpacked(built.path)["README.md"].decode()
    assert check_description(built.path)


def test_head_names_that_are_no_identifiers() -> None:
    from cellfleet.bundle.description import identifiers

    heads = (
        Head(name="9lives", kind="foreground"),
        Head(name="a.b", kind="distance"),
        Head(name="a-b", kind="distance"),
    )
    assert identifiers(h.name for h in heads) == ["c_9lives", "a_b", "a_b_"]


def test_the_manifest_lists_every_other_file(bundle: Path) -> None:
    files = unpacked(bundle)
    listed = json.loads(files.pop(MANIFEST))["files"]
    assert listed == {n: {"sha256": sha256_hex(d), "bytes": len(d)} for n, d in files.items()}
