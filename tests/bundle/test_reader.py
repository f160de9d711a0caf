"""Opening a bundle: the archive is sound, what it holds is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellfleet.bundle import open_bundle
from cellfleet.bundle.golden import npy_bytes, read_npy
from cellfleet.bundle.manifest import MANIFEST
from cellfleet.bundle.refusals import BadDescription, BadFrame, BundleRefused, UnknownFormat, WrongDigest, WrongFiles
from cellfleet.canonical import sha256_file
from support_bundle import described, repacked

Files = dict[str, bytes]
Change = Callable[[dict[str, Any]], Any]
IMAGE, TRUTH = "golden/01-discs/image.npy", "golden/01-discs/truth.npy"


def refused(files: Files, tmp_path: Path, kind: type[BundleRefused]) -> str:
    """The message by which these files are refused."""
    with pytest.raises(BundleRefused) as caught:
        open_bundle(repacked(files, tmp_path / "x.bundle.zip"))
    assert type(caught.value) is kind, caught.value
    return str(caught.value)


def test_a_valid_bundle(bundle: Path, files: Files, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.sha256 == sha256_file(bundle)
    assert (opened.manifest.name, opened.spec.version, opened.spec.channels) == ("tiny", "1.0.0", ("phase",))
    assert [v.name for v in opened.variants] == ["onnxruntime/fp32"]
    assert {n: opened.read(n) for n in opened.names} == files
    assert sorted(p.name for p in tmp_path.iterdir()) == []
    assert open_bundle(repacked(described(files), tmp_path / "same.bundle.zip")).sha256 == opened.sha256


def test_a_name_that_is_not_there(bundle: Path) -> None:
    with pytest.raises(WrongFiles, match="holds no weights"):
        open_bundle(bundle).read("weights.bin")


def test_a_file_that_changes_after_opening(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.bundle.zip"
    path.write_bytes(bundle.read_bytes())
    opened = open_bundle(path)
    path.write_bytes(bundle.read_bytes().replace(b"Intended use", b"Intended abc"))
    with pytest.raises(WrongDigest):
        opened.read("README.md")


@pytest.mark.parametrize(
    "name", ["portable.onnx", "variants/onnxruntime-fp32.onnx", "README.md", "bioimageio.yaml", "reference.json", IMAGE]
)
def test_a_missing_file(files: Files, tmp_path: Path, name: str) -> None:
    del files[name]
    assert name in refused(files, tmp_path, WrongFiles)
    if name != "variants/onnxruntime-fp32.onnx":
        assert name in refused(described(files), tmp_path, WrongFiles)


def test_no_description(files: Files, tmp_path: Path) -> None:
    del files[MANIFEST]
    assert "not a cellfleet bundle" in refused(files, tmp_path, WrongFiles)


def test_a_file_too_many(files: Files, tmp_path: Path) -> None:
    assert "setup.py" in refused({**files, "setup.py": b"import os"}, tmp_path, WrongFiles)


def test_a_file_of_another_digest(files: Files, tmp_path: Path) -> None:
    longer = {**files, "README.md": files["README.md"] + b"x"}
    same_size = {**files, "README.md": files["README.md"][:-1] + b"x"}
    for changed in (longer, same_size):
        assert "README.md" in refused(changed, tmp_path, WrongDigest)


def test_a_variant_that_names_another_digest(files: Files, tmp_path: Path) -> None:
    changed = described(files, lambda m: m["variants"][0].update(sha256="a" * 64))
    assert "onnxruntime/fp32" in refused(changed, tmp_path, WrongDigest)


@pytest.mark.parametrize("version", [2, 0, "1", None, [1]])
def test_an_unknown_format_version(files: Files, tmp_path: Path, version: object) -> None:
    message = refused(described(files, lambda m: m.update(format_version=version)), tmp_path, UnknownFormat)
    assert repr(version) in message
    assert "knows 1" in message


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda m: m.update(run_this="x"), "run_this"),
        (lambda m: m["spec"].update(hook="x"), "spec.hook"),
        (lambda m: m["spec"].update(channels=[]), "spec.channels"),
        (lambda m: m["spec"].update(stride="4"), "spec.stride"),
        (lambda m: m["spec"]["objects"].update(min_area_px=-1), "spec.objects.min_area_px"),
        (lambda m: m["files"]["README.md"].update(sha256="x"), "files.README.md.sha256"),
        (lambda m: m.pop("lineage"), "lineage"),
        (lambda m: m.update(name="other"), "name different models"),
        (lambda m: m.update(variants=[]), "variants are none"),
        (lambda m: m["variants"].append(m["variants"][0]), "variants are"),
        (lambda m: m["variants"][0].update(engine="magic"), "variants.0.engine"),
    ],
)
def test_a_description_that_makes_no_sense(files: Files, tmp_path: Path, change: Change, where: str) -> None:
    assert where in refused(described(files, change), tmp_path, BadDescription)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000,
        b'{"format_version": 1, "files": ' + b"[" * 1_000 + b"]" * 1_000 + b"}", b'{"format_version": 1}', b"1" * 10_000,
    ],
)  # fmt: skip
def test_a_description_that_is_no_json_or_too_deep(files: Files, tmp_path: Path, text: bytes) -> None:
    refused({**files, MANIFEST: text}, tmp_path, BadDescription)


def test_an_enormous_description(files: Files, tmp_path: Path) -> None:
    padded = files[MANIFEST] + b" " * 16_000_000
    assert "bytes" in refused({**files, MANIFEST: padded}, tmp_path, BadDescription)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        (IMAGE, np.zeros((1, 72, 96), np.float32)),
        (IMAGE, np.zeros((72, 96), np.uint8)),
        (IMAGE, np.zeros((1, 71, 96), np.uint8)),
        (IMAGE, np.zeros((2, 72, 96), np.uint8)),
        (TRUTH, np.zeros((72, 96), np.int64)),
        (TRUTH, np.zeros((72, 95), np.uint16)),
    ],
)
def test_golden_frames_that_do_not_fit(files: Files, tmp_path: Path, name: str, array: np.ndarray[Any, Any]) -> None:
    refused(described({**files, name: npy_bytes(array)}), tmp_path, BadFrame)


def header(text: str, body: bytes = b"") -> bytes:
    """A NumPy file with this header."""
    raw = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no array",
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n(S'id'\ntR."),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 10**9)}"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000, 4000000000)}"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -4)}", b"1234"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (2.0, 2)}", b"1234"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': [2, 2]}", b"1234"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (0,)}"),
        header("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 2)}", b"1234"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2)}", b"123"),
        header("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (2, 2)}", b"1234"),
        header("__import__('os').getcwd()"),
        header("[" * 5_000),
        header("{'shape': (1,)}"),
        header("3"),
    ],
)
def test_arrays_that_are_not_read(data: bytes) -> None:
    with pytest.raises(BadFrame):
        read_npy(data, "x.npy")


def test_arrays_that_are_read() -> None:
    for dtype in (np.uint8, np.uint16, np.uint32, np.float32):
        array = np.arange(24).reshape(2, 3, 4).astype(dtype)
        found = read_npy(npy_bytes(array), "x.npy")
        assert found.dtype == array.dtype
        assert (found == array).all()
    transposed = np.arange(6, dtype=">u2").reshape(2, 3).T
    assert (read_npy(npy_bytes(transposed), "x.npy") == transposed).all()


def test_the_description_is_canonical(files: Files) -> None:
    text = files[MANIFEST].decode()
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text.strip()
