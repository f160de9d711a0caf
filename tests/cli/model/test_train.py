"""``cellfleet train``, ``export`` and ``bundle``, one after the other in one project: output, files and exit codes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cellfleet.bundle import open_bundle
from cellfleet.canonical import sha256_file, sha256_hex
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.data import DataSetVersion
from cellfleet.lineage import RecordStore
from support_bundle import described, repacked, unpacked
from support_onnx import FP32, tiny_onnx
from support_training import tiny_data

TOML = """
[model]
name = "discs"
authors = ["A. Tester"]
[training]
epochs = 14
validate_every = 7
batch_size = 4
crop_px = 32
learning_rate = 0.01
features = [8, 16]
residual_units = 1
threads = 1
[bundle]
golden_frames = 2
golden_px = 64
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished, exported and bundled run."""
    root = tmp_path_factory.mktemp("project")
    tiny_data(root / "data").save(root / "dataset.json")
    (root / "cellfleet.toml").write_text(TOML)
    for command in (["train"], ["export"], ["bundle", "build"]):
        assert run([*command, "-p", str(root), "--json"]) == ExitCode.OK
    return root


@pytest.fixture
def bundle(project: Path) -> Path:
    return project / "bundles" / "discs-0.1.0.bundle.zip"


def facts(capsys: pytest.CaptureFixture[str], *args: str, code: ExitCode = ExitCode.OK) -> dict[str, object]:
    """What a command prints with --json."""
    capsys.readouterr()
    assert run([*args, "--json"]) == code
    printed = capsys.readouterr()
    assert printed.err == ""
    value: dict[str, object] = json.loads(printed.out)
    return value


def test_training_shows_how_it_goes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--set", "training.epochs=2", "--set", "training.validate_every=1"]
    assert run(["train", "-p", str(project), "--run", "short", *more]) == ExitCode.OK
    printed = capsys.readouterr()
    assert "training epochs 2/2: loss " in printed.err
    assert "validation AP50 " in printed.err
    assert "0:00 left" in printed.err
    assert "trained 2 epochs on a grid of 0.5 um" in printed.out
    assert f"written to {project / 'runs' / 'short'}" in printed.out
    digest = printed.out.partition("training run ")[2].split()[0]
    assert RecordStore(project / "records").get("training", digest)["epochs"] == 2


def test_a_run_is_not_overwritten(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (project / "runs" / "latest" / "training.json").read_bytes()
    assert run(["train", "-p", str(project)]) == ExitCode.REFUSED
    assert "holds a finished run" in capsys.readouterr().err
    found = facts(capsys, "train", "-p", str(project), "--resume")
    assert found["epochs"] == 14
    assert (project / "runs" / "latest" / "training.json").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["train", "--set", "training.crop_px=51", "--run", "x"], ExitCode.USAGE, "must be a multiple of 2"),
        (["train", "--set", "training.crops=5"], ExitCode.USAGE, "crop_px"),
        (["train", "absent.json"], ExitCode.REFUSED, "no such data set version"),
        (["train", "--resume", "--run", "x"], ExitCode.REFUSED, "no checkpoint"),
        (["train", "--resume", "--set", "training.seed=9"], ExitCode.REFUSED, "other data or settings"),
        (["export", "--run", "x"], ExitCode.REFUSED, "no finished training run"),
        (["export", "--set", "model.version=one"], ExitCode.USAGE, "model.version"),
        (["bundle", "build", "--run", "x"], ExitCode.REFUSED, "not a model folder"),
        (["bundle", "show", "absent.zip"], ExitCode.REFUSED, "no such file"),
        (["bundle", "verify", "cellfleet.toml"], ExitCode.REFUSED, "is not a bundle"),
    ],
)
def test_mistakes(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(project)
    assert run(args) == code
    printed = capsys.readouterr()
    assert said in " ".join(printed.err.split())
    assert "Traceback" not in printed.err


def test_export_tells_how_close_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = project / "elsewhere" / "model"
    assert run(["export", "-p", str(project), "--out", str(out)]) == ExitCode.OK
    printed = capsys.readouterr()
    assert "ONNX equals PyTorch to within" in printed.out
    assert "constant, 65535" in printed.out
    assert "comparing ONNX with PyTorch" in printed.err
    for name in ("model.json", "portable.onnx", FP32):
        assert sha256_file(out / name) == sha256_file(project / "runs" / "latest" / "model" / name)


def test_two_builds_on_two_folders(
    project: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "another folder"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("bundles", "*.db"))
    found = facts(capsys, "bundle", "build", "-p", str(other))
    assert found["sha256"] == sha256_file(bundle) == sha256_file(Path(str(found["path"])))
    assert found["bytes"] == bundle.stat().st_size
    assert bundle.read_bytes() == Path(str(found["path"])).read_bytes()
    assert os.fspath(project).encode() not in bundle.read_bytes()


def test_show(project: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bundle", "show", str(bundle)]) == ExitCode.OK
    printed = capsys.readouterr().out
    data = DataSetVersion.load(project / "dataset.json")
    for text in (
        f"discs 0.1.0: {sha256_file(bundle)}",
        "0.5 um per pixel",
        "onnxruntime/fp32",
        f"data set version {data.digest}",
    ):
        assert text in printed
    found = facts(capsys, "bundle", "show", str(bundle))
    assert found["sha256"] == sha256_file(bundle)
    assert found["name"] == "discs"


def test_verify(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bundle", "verify", str(bundle), "--threads", "1"]) == ExitCode.OK
    printed = capsys.readouterr().out
    assert "bioimageio.yaml is valid" in printed
    assert "verified" in printed
    found = facts(capsys, "bundle", "verify", str(bundle))
    assert found["passed"] is True
    opened = open_bundle(bundle)
    assert {g.stratum for g in opened.golden()} == {"A", "B"}
    assert all(max(g.truth.shape) <= 64 for g in opened.golden())


def test_verify_a_bundle_that_draws_nonsense(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = unpacked(bundle)
    nonsense = repacked(described({**files, FP32: tiny_onnx(gain=-6.0)}), tmp_path / "nonsense.bundle.zip")
    assert run(["bundle", "verify", str(nonsense)]) == ExitCode.FINDINGS
    assert "NOT verified" in capsys.readouterr().out
    found = facts(capsys, "bundle", "verify", str(nonsense), code=ExitCode.FINDINGS)
    assert found["passed"] is False


def test_verify_half_a_bundle(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = tmp_path / "half.bundle.zip"
    half.write_bytes(bundle.read_bytes()[: bundle.stat().st_size // 2])
    assert run(["bundle", "verify", str(half)]) == ExitCode.REFUSED
    printed = capsys.readouterr()
    assert "is cut short" in " ".join(printed.err.split())
    assert "do not use this file" in " ".join(printed.err.split())


def test_a_licence_that_nobody_knows(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    args = ["bundle", "build", "-p", str(project), "--out", str(out), "--set", "model.license=do what you like"]
    assert run(args) == ExitCode.REFUSED
    said = " ".join(capsys.readouterr().err.split())
    assert "SPDX" in said
    assert "error: bioimageio.yaml is not valid" in said
    assert list(out.iterdir()) == []


def test_a_bundle_gives_way_to_a_valid_one_only_and_that_is_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["bundle", "build", "-p", str(project), "--out", str(tmp_path)]
    assert run(args) == ExitCode.OK
    assert "replaces" not in capsys.readouterr().out
    (file,) = tmp_path.iterdir()
    first = file.read_bytes()
    assert run([*args, "--set", "model.license=do what you like"]) == ExitCode.REFUSED
    assert [f.read_bytes() for f in tmp_path.iterdir()] == [first]
    assert run(args) == ExitCode.OK
    assert "replaces" not in capsys.readouterr().out, "the same bytes"
    assert run([*args, "--set", "model.description=another"]) == ExitCode.OK
    assert f"replaces {sha256_hex(first)}" in capsys.readouterr().out
    assert file.read_bytes() != first


def test_an_output_that_cannot_be_written(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(["bundle", "build", "-p", str(project), "--out", str(tmp_path / "file")]) == ExitCode.STORAGE
    assert run(["train", "-p", str(project), "--set", f"training.runs={tmp_path / 'file'}"]) == ExitCode.STORAGE
    assert "Traceback" not in capsys.readouterr().err
