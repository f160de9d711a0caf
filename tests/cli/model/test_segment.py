"""``cellfleet segment``: what it prints, what it writes, its exit codes; with a bundle alone and without torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.data import read_mask
from cellfleet.lineage import RecordStore
from support_bundle import discs, tiny_bundle
from support_images import write_png, write_tiff
from support_video import moving_disc, write_video
from support_waiting import wait_until

Capture = pytest.CaptureFixture[str]

NO_TORCH = """
import sys
for name in ("torch", "monai", "mlflow"):
    sys.modules[name] = None
from cellfleet.cli.main import main
main()
"""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle in a folder that is no project, with frames beside it."""
    monkeypatch.setenv("CELLFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        write_tiff(tmp_path / "frames" / f"well A{i}.tif", discs(i)[0])
    return tiny_bundle(tmp_path)


def program(*args: str | Path) -> list[str]:
    return [sys.executable, "-c", NO_TORCH, *map(str, args)]


def test_it_says_what_runs_why_and_where_the_results_are(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["segment", str(bundle), "frames", "--out", "out"]) == ExitCode.OK
    text = capsys.readouterr().out.splitlines()
    assert text[0].startswith("tiny 1.0.0 with onnxruntime ")
    assert text[0].endswith("(onnxruntime/fp32 is the only variant that runs here)")
    assert text[1].startswith("2 frames segmented, ")
    assert text[2] == "12 objects in 2 frames"
    digest = text[3].removeprefix("run ")
    assert text[4] == f"written to out/{digest[:12]}"
    assert (tmp_path / "out" / digest[:12] / "masks" / "well A1.tif").is_file()
    assert run(["segment", str(bundle), "frames", "--out", "out"]) == ExitCode.OK
    assert "0 frames segmented; 2 were already segmented" in capsys.readouterr().out


def test_json_and_nothing_else(bundle: Path, capsys: Capture) -> None:
    write_video(Path("frames/film.avi"), [moving_disc(i) for i in range(3)])
    Path("frames/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert run(["segment", str(bundle), "frames", "-o", "out", "--json", "--no-overlays"]) == ExitCode.FINDINGS
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert captured.err == ""
    assert (facts["frames"], facts["objects"], facts["segmented"], facts["skipped"]) == (5, 15, 5, 0)
    assert facts["variant"] == "onnxruntime/fp32"
    assert facts["failed"][0]["source"].endswith("bad.png")
    assert not (Path(facts["folder"]) / "overlays").exists()


def test_unreadable_files_are_named_and_the_exit_code_tells(bundle: Path, capsys: Capture) -> None:
    Path("frames/bad.tif").write_bytes(b"II*\x00 cut")
    assert run(["segment", str(bundle), "frames", "--out", "out"]) == ExitCode.FINDINGS
    captured = capsys.readouterr()
    assert "not segmented: " in captured.err
    assert "bad.tif: truncated or damaged" in captured.err
    assert "2 frames segmented" in captured.out
    assert "1 could not be segmented; they are listed in run.json" in captured.out
    assert run(["segment", str(bundle), "frames/bad.tif", "--out", "other"]) == ExitCode.REFUSED
    assert "0 objects in 0 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["absent.zip", "frames"], ExitCode.REFUSED, "absent.zip: no such file"),
        (["BUNDLE", "absent"], ExitCode.REFUSED, "absent: no such file or folder"),
        (["BUNDLE", "frames", "--variant", "openvino/int8"], ExitCode.REFUSED, "no variant 'openvino/int8'"),
        (["BUNDLE", "frames", "--tile-px", "3"], ExitCode.USAGE, "segment.tile_px"),
        (["BUNDLE", "frames", "--pixel-size-um", "0"], ExitCode.USAGE, "--pixel-size-um 0: not a size"),
        (["BUNDLE", "frames", "--pixel-size-um", "nan"], ExitCode.USAGE, "not a size"),
        (["BUNDLE", "frames", "--channels", "a,a"], ExitCode.USAGE, "duplicate name"),
        (["BUNDLE", "frames", "--set", "segment.tile_pix=9"], ExitCode.USAGE, "did you mean 'tile_px'?"),
    ],
)
def test_mistakes(bundle: Path, args: list[str], code: ExitCode, message: str, capsys: Capture) -> None:
    given = [str(bundle) if a == "BUNDLE" else a for a in args]
    assert run(["segment", *given, "--out", "out"]) == code
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_folder_that_cannot_be_made_is_the_disk_s_fault(bundle: Path, capsys: Capture) -> None:
    Path("out").write_text("a file")
    assert run(["segment", str(bundle), "frames", "--out", "out"]) == ExitCode.STORAGE
    assert "cannot make the folder out/" in capsys.readouterr().err


def test_options_reach_the_frames(bundle: Path, capsys: Capture) -> None:
    rgb = np.stack([discs(3)[0], discs(3)[0] // 2, discs(3)[0] // 3], axis=-1)
    write_png(Path("colour.png"), rgb)
    args = ["segment", str(bundle), "colour.png", "--out", "out", "--json"]
    assert run(args) == ExitCode.REFUSED
    assert "red, green and blue differ" in json.loads(capsys.readouterr().out)["failed"][0]["message"]
    more = ["--channels", "phase,b,c", "--pixel-size-um", "0.5", "--tile-px", "64", "--threads", "1"]
    assert run([*args, *more]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["objects"] == 6
    settings = json.loads((Path(facts["folder"]) / "run.json").read_bytes())["settings"]
    assert settings == {
        "cellfleet": settings["cellfleet"], "channels": ["phase", "b", "c"], "pixel_size_um": 0.5, "tile_px": 64
    }  # fmt: skip


def test_a_model_folder_does_as_well(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    del bundle
    assert run(["segment", str(tmp_path / "model"), "frames", "--out", "out", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["objects"] == 12


def test_a_project_keeps_the_run_among_its_records(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    Path("cellfleet.toml").write_text("[segment]\ntile_px = 512\n")
    assert run(["segment", str(bundle), "frames", "--out", "out", "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    records = RecordStore(tmp_path / "records").find("run", run_digest=facts["run_digest"])
    assert len(records) == 1
    assert records[0][1]["settings"]["tile_px"] == 512


def test_a_process_without_torch(bundle: Path) -> None:
    done = subprocess.run(
        program("segment", bundle, "frames", "--out", "out"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "12 objects in 2 frames" in done.stdout
    assert "segmenting: 2/2" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are set as on Unix")
def test_a_full_disk(bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    write_tiff(tmp_path / "frames" / "x.tif", random.integers(0, 255, (900, 900), np.uint8))
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n{NO_TORCH}"
    command = [sys.executable, "-c", code, "segment", str(bundle), "frames", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.STORAGE, done.stderr
    assert "error: cannot write " in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "out").rglob("masks/*.tif"))) >= 2
    assert [p for p in (tmp_path / "out").rglob("*") if ".part" in p.name] == []
    again = subprocess.run(
        program("segment", bundle, "frames", "--out", "out"), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0
    assert "1 frame segmented" in again.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="the signal of Ctrl-C is sent as on Unix")
@pytest.mark.parametrize(("what", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)])
def test_ctrl_c_and_kill_leave_nothing_half(bundle: Path, tmp_path: Path, what: signal.Signals, code: int) -> None:
    write_video(tmp_path / "films" / "film.avi", [moving_disc(i, 120, 400) for i in range(50)])
    command = program("segment", bundle, "films", "--out", "out")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(
            lambda: list((tmp_path / "out").rglob("rows/film@000003.json")),
            "the fourth frame",
            alive=lambda: process.poll() is None,
            every_s=0.005,
        )
        os.kill(process.pid, what)
        _, err = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in err
    rows = list((tmp_path / "out").rglob("rows/*.json"))
    assert 4 <= len(rows) < 50
    for row in rows:
        facts = json.loads(row.read_bytes())
        assert int(read_mask(row.parents[1] / facts["files"]["mask"]).max()) == facts["count"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{50 - len(rows)} frames segmented" in again.stdout
    assert "in 50 frames" in again.stdout
