"""What users hand over by mistake: each is a sentence that names the file and says what to do; nothing is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.data import read_mask
from support_bundle import discs
from support_images import plain_rows, scene, write_folder, write_png, write_tiff
from support_journeys import BUNDLE, TOML, cellfleet, command, environment, refused, tree
from support_onnx import tiny_folder

Capture = pytest.CaptureFixture[str]
Spoil = Callable[[Path], object]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a good data set, frozen, and a model folder beside it."""
    write_folder(tmp_path / "data", plain_rows())
    (tmp_path / "cellfleet.toml").write_text(TOML)
    monkeypatch.setenv("CELLFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert run(["data", "freeze", "--json"]) == ExitCode.OK
    tiny_folder(tmp_path / "model")
    return tmp_path


def _empty(data: Path) -> None:
    shutil.rmtree(data)
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty, "no image"),
        (lambda data: shutil.rmtree(data / "images"), "images"),
        (lambda data: shutil.rmtree(data), "no such folder or file"),
        (lambda data: write_tiff(data / "images" / "f1.tif", scene(1)[0].astype(np.float32)), "images/f1"),
        (lambda data: _cut(data / "images" / "f1.tif"), "images/f1"),
        (lambda data: _cut(data / "masks" / "f1.png"), "masks/f1"),
        (lambda data: write_tiff(data / "images" / "f1.tif", np.zeros((1, 1), np.uint8)), "f1"),
    ],
    ids=["empty", "masks only", "gone", "32-bit float", "truncated image", "truncated mask", "1 x 1 image"],
)
def test_a_data_set_that_cannot_be_used(project: Path, spoil: Spoil, message: str, capsys: Capture) -> None:
    spoil(project / "data")
    before = tree(project)
    refused(capsys, ["data", "freeze"], ExitCode.REFUSED, message)
    assert run(["data", "validate"]) in (ExitCode.FINDINGS, ExitCode.REFUSED)
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert "Traceback" not in printed.err
    assert tree(project) == before


def test_images_that_changed_after_freezing_are_not_trained_with(project: Path, capsys: Capture) -> None:
    for i in range(9):
        _cut(project / "data" / "images" / f"f{i}.tif")
    before = tree(project)
    refused(capsys, ["train"], ExitCode.REFUSED, ".tif", "changed")
    assert {k: v for k, v in tree(project).items() if not k.startswith("runs")} == before


def test_a_data_set_of_one_pixel_and_of_one_value(project: Path, capsys: Capture) -> None:
    """One image and its mask are 1 x 1, all others have one value: training goes on or says why it cannot."""
    for i in range(9):
        image, labels = scene(i)
        write_tiff(project / "data" / "images" / f"f{i}.tif", np.full_like(image, 7 + i))
        write_png(project / "data" / "masks" / f"f{i}.png", labels)
    write_tiff(project / "data" / "images" / "f1.tif", np.ones((1, 1), np.uint8))
    write_png(project / "data" / "masks" / "f1.png", np.ones((1, 1), np.uint8))
    assert run(["data", "freeze"]) == ExitCode.OK
    assert run(["train", "--set", "training.target_pixel_size_um=native"]) == ExitCode.OK
    assert "validation AP@0.5" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 3)])
@pytest.mark.parametrize("value", [0, 255])
def test_tiny_frames_and_frames_of_one_value_are_segmented(
    project: Path, shape: tuple[int, int], value: int, capsys: Capture
) -> None:
    write_tiff(project / "frames" / "x.tif", np.full(shape, value, np.uint8))
    capsys.readouterr()
    assert run(["segment", "model", "frames", "--out", "out", "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["objects"] == 0
    mask = read_mask(Path(facts["folder"]) / "masks" / "x.tif")
    assert mask.shape == shape


def test_seventy_thousand_objects(project: Path, capsys: Capture) -> None:
    count, pitch = 265, 12
    frame = np.full((count * pitch, count * pitch), 30, np.uint8)
    for dy in range(2, 10):
        for dx in range(2, 10):
            frame[dy::pitch, dx::pitch] = 200
    write_tiff(project / "frames" / "many.tif", frame)
    capsys.readouterr()
    assert run(["segment", "model", "frames", "--out", "out", "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["objects"] == count**2 > 70_000
    mask = tifffile.imread(Path(facts["folder"]) / "masks" / "many.tif")
    assert mask.dtype == np.uint32
    assert len(np.unique(mask)) == count**2 + 1
    with (Path(facts["folder"]) / "objects.csv").open(encoding="utf-8") as f:
        assert sum(1 for _ in f) == count**2 + 1


MEMORY = """
import atexit, resource, sys
atexit.register(lambda: sys.stderr.write(f"\\npeak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\\n"))
"""


def test_twenty_thousand_squared_stays_below_six_gigabytes(tmp_path: Path) -> None:
    side, pitch = 20_000, 2_000
    frame = np.full((side, side), 40, np.uint8)
    disc = discs(0)[0]
    for y in range(0, side, pitch):
        for x in range(0, side, pitch):
            frame[y : y + disc.shape[0], x : x + disc.shape[1]] = disc
    write_tiff(tmp_path / "huge.tif", frame)
    del frame
    tiny_folder(tmp_path / "model")
    done = cellfleet(
        "segment", "model", "huge.tif", "--out", "out", "--no-overlays", "--json", cwd=tmp_path, code=MEMORY
    )
    assert json.loads(done.stdout)["objects"] == 6 * (side // pitch) ** 2
    peak_kib = int(done.stderr.partition("peak ")[2].split()[0])
    assert peak_kib < 6_000_000


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[training]\nepoch = 3\n", "unknown key training.epoch", "did you mean 'epochs'?"),
        ("[trainin]\nepochs = 3\n", "unknown section [trainin]", "did you mean 'training'?"),
        ("[training]\nepochs = three\n", "is not valid TOML", "quotes"),
        ('[training]\nepochs = "three"\n', "training.epochs", "fix that value"),
    ],
)
@pytest.mark.parametrize("argv", [["data", "freeze"], ["train"], ["segment", "model", "data/images", "--out", "out"]])
def test_a_project_file_with_a_typo(
    project: Path, argv: list[str], text: str, message: str, hint: str, capsys: Capture
) -> None:
    (project / "cellfleet.toml").write_text(text)
    before = tree(project)
    refused(capsys, argv, ExitCode.USAGE, "cellfleet.toml", message, hint)
    assert tree(project) == before


@pytest.mark.parametrize(
    "argv",
    [
        ["bundle", "show", "half.zip"],
        ["bundle", "verify", "half.zip"],
        ["evaluate", "half.zip"],
        ["segment", "half.zip", "frames", "--out", "elsewhere"],
        ["lineage", "half.zip"],
    ],
)
def test_a_bundle_cut_in_half(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], capsys: Capture
) -> None:
    shutil.copytree(story / "frames", tmp_path / "frames")
    shutil.copy(story / BUNDLE, tmp_path / "half.zip")
    _cut(tmp_path / "half.zip")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    refused(capsys, argv, ExitCode.REFUSED, "half.zip", "is cut short")
    assert tree(tmp_path) == before


def test_names_with_spaces_and_other_scripts(story: Path, capsys: Capture) -> None:
    """The whole story was told in such a folder; the chain of a mask leads back through it."""
    (mask, *others) = sorted((story / "out").rglob("masks/*.tif"))
    assert len(others) == 2
    assert "細胞" in mask.name
    capsys.readouterr()
    assert run(["lineage", str(mask), "-p", str(story), "--json"]) == ExitCode.OK
    links = json.loads(capsys.readouterr().out)["links"]
    assert [link["what"] for link in links] == ["mask", "run", "bundle", "decision", "training", "data set", "project"]
    assert [link["problem"] for link in links if link["problem"]] == []


@pytest.mark.parametrize(
    "argv",
    [
        ["data", "synth", "file/x", "--wells", "1", "--frames", "1", "--size", "64"],
        ["data", "freeze", "--out", "file/x.json"],
        ["train", "--set", "training.runs=file/runs"],
        ["export", "--out", "file/model"],
        ["bundle", "build", "--out", "file"],
        ["evaluate", BUNDLE, "--out", "file/x"],
        ["segment", BUNDLE, "frames", "--out", "file/out"],
        ["init", "file/project"],
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_a_file_where_a_folder_should_be(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], capsys: Capture
) -> None:
    shutil.copytree(story, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    Path("file").write_text("in the way")
    before = tree(tmp_path)
    refused(capsys, argv, ExitCode.STORAGE, "file")
    assert tree(tmp_path) == before


def test_a_reader_that_goes_away_and_a_full_device_are_no_defects(story: Path) -> None:
    line = command("data", "show", "-p", str(story))
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    assert done.returncode == ExitCode.STORAGE, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"No space left on device" in done.stderr
