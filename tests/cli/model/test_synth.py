"""``cellfleet data synth``: from nothing to a frozen data set version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tifffile

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run

SMALL = ["--wells", "3", "--frames", "1", "--size", "128"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_synth_validate_freeze(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "synth", "data", "--seed", "5", *SMALL]) == ExitCode.OK
    caught = capsys.readouterr()
    assert "6 images with masks: 3 wells of each kind of cell (spread, round), 1 frames each" in caught.out
    assert "simulating: 6/6 B03_t000.tif" in caught.err
    assert run(["data", "validate", "data", "--strict"]) == ExitCode.OK
    capsys.readouterr()
    assert run(["data", "freeze", "data", "--json"]) == ExitCode.OK
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert all(set(row) == {"spread", "round"} for row in splits.values())


def test_settings_and_json(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    flags = ["--set", "bit_depth=16", "--set", "round.radius_um=12", "--json"]
    assert run(["data", "synth", "deep", *SMALL, *flags]) == ExitCode.OK
    caught = capsys.readouterr()
    facts = json.loads(caught.out)
    assert caught.err == ""
    assert (facts["images"], facts["wells"], facts["kinds"]) == (6, 6, ["spread", "round"])
    assert facts["params"]["kinds"][1]["radius_um"] == 12
    image = tifffile.imread(here / "deep" / "images" / "A01_t000.tif")
    assert (image.dtype.name, image.shape) == ("uint16", (128, 128))


def test_mistakes_are_sentences(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("keep")
    assert run(["data", "synth", "full", *SMALL]) == ExitCode.REFUSED
    assert "not an empty folder" in capsys.readouterr().err
    assert run(["data", "synth", "out", *SMALL, "--set", "defocuss_um=3"]) == ExitCode.REFUSED
    error = capsys.readouterr().err
    assert "unknown parameter 'defocuss_um'" in error
    assert "did you mean 'defocus_um'?" in error
    assert not (here / "out").exists()
