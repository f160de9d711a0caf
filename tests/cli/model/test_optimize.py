"""``cellfleet optimize``: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellfleet.bundle import ModelFolder
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.lineage import RecordStore
from support_images import plain_rows, write_folder
from support_unet import unet_folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_folder(tmp_path / "data", plain_rows(12))
    (tmp_path / "cellfleet.toml").write_text('[data]\nsource = "data"\n[optimize]\ncalibration_frames = 3\n')
    monkeypatch.chdir(tmp_path)
    assert run(["data", "freeze", "--json"]) == ExitCode.OK
    return tmp_path


def test_a_run_by_name(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet_folder(project / "runs" / "latest" / "model")
    capsys.readouterr()
    assert run(["optimize"]) == ExitCode.OK
    printed = capsys.readouterr()
    assert "the same AP@0.5 as fp32 (1.000)" in printed.out
    assert "kept 4 of 4 variants" in printed.out
    assert "optimising: " in printed.err
    assert len(ModelFolder.load(project / "runs" / "latest" / "model").variants) == 4


def test_a_model_folder_by_path_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet_folder(project / "a model", outlier=3000.0)
    capsys.readouterr()
    assert run(["optimize", "dataset.json", "--run", "a model", "--set", "optimize.openvino=false", "--json"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert printed.err == ""
    assert facts["variants"]["onnxruntime/fp32"]["kept"]
    assert not facts["variants"]["onnxruntime/int8"]["kept"]
    record = RecordStore(project / "records").get("optimization", facts["optimization"])
    assert [v["name"] for v in record["variants"]] == ["onnxruntime/fp32", "onnxruntime/int8"]
    assert run(["optimize", "--run", "a model"]) == ExitCode.OK
    assert "dropped" in capsys.readouterr().out


def test_mistakes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["optimize"]) == ExitCode.REFUSED
    assert "not a model folder" in capsys.readouterr().err
    unet_folder(project / "runs" / "latest" / "model")
    assert run(["optimize", "absent.json"]) == ExitCode.REFUSED
    assert run(["optimize", "--set", "optimize.calibration=best"]) == ExitCode.USAGE
    assert run(["optimize", "--set", 'optimize.keep_fp32=["widde"]']) == ExitCode.USAGE
    assert "the convolutions are: node_enter" in capsys.readouterr().err
