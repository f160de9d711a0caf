"""Ctrl-C, a kill and a full disk at every stage: nothing half-written, nothing lost, and the next run ends well."""

from __future__ import annotations

import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cellfleet.bundle import ModelFolder
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from support_journeys import BUNDLE, cellfleet, leftovers, stopped, tree

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of a process are set as on Unix"),
    pytest.mark.timeout(900),  # several processes that train or export, on a machine that may be busy
]

MODEL = "runs/latest/model"


@dataclass(frozen=True)
class Stage:
    """One command of the story.

    Attributes:
        argv: the command.
        makes: what it makes, below the project; removed before it runs.
        midst: the moment of Ctrl-C, see :func:`support_journeys.stopped`.
        last: the moment of the kill, when the result is about to get its name.
        limit: bytes of the largest file that the disk takes, less than the result needs.
    """

    argv: tuple[str, ...]
    makes: str
    midst: tuple[str, str, int]
    last: tuple[str, str, int]
    limit: int


STAGES = {
    "data synth": Stage(
        ("data", "synth", "synthetic", "--size", "64", "--wells", "1", "--frames", "2"),
        "synthetic",
        ("os.rename", "masks/A01_t001", 1),
        ("os.rename", "p/synthetic", 1),
        3000,
    ),
    "data freeze": Stage(
        ("data", "freeze"), "dataset.json", ("open", "masks/f05", 1), ("os.rename", "dataset.json", 1), 1000
    ),
    "train": Stage(
        ("train",), "runs/latest", ("os.rename", "checkpoint.pt", 2), ("os.rename", "training.json", 1), 20_000
    ),
    "export": Stage(
        ("export",), MODEL, ("os.rename", "portable.onnx", 1), ("os.rename", "model.json", 1), 20_000
    ),
    "optimize": Stage(("optimize",), "", ("open", "images/f", 4), ("os.rename", "int8.onnx", 1), 20_000),
    "bundle build": Stage(
        ("bundle", "build"), "bundles", ("open", "portable.onnx", 1), ("os.rename", ".bundle.zip", 1), 50_000
    ),
    "evaluate": Stage(
        ("evaluate", BUNDLE), "evaluations", ("open", "overlays/", 2), ("os.rename", "evaluations/discs", 1), 10_000
    ),
    "segment": Stage(
        ("segment", BUNDLE, "frames", "--out", "out"), "out", ("os.rename", "1.tif", 1), ("os.rename", "2.json", 1), 1000
    ),
}  # fmt: skip
TIMED = (
    *("run.json", "runs.jsonl", "history.csv", "optimization.json", "checkpoint.pt", "records/", "metrics.json"),
    *("report.html", "decision.json", "rows/", "frames.csv", "objects.csv", ".parquet"),
)
"""Files that hold times or paths, which differ from run to run."""
LIMIT = """
import resource, sys
sys.dont_write_bytecode = True
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""


@pytest.fixture
def project(story: Path, tmp_path: Path) -> Path:
    shutil.copytree(story, tmp_path / "p")
    return tmp_path / "p"


def kept(before: dict[str, str], project: Path, stage: Stage) -> None:
    """Everything that was there before is there still, and what is there is whole."""
    now = tree(project)
    if "optimize" in stage.argv:  # it updates a folder, whose description fits its files at every moment
        folder = ModelFolder.load(project / MODEL)
        assert all(folder.read(v.file, v.sha256) for v in folder.variants)
        before = {k: v for k, v in before.items() if not k.startswith(MODEL)}
    assert {k: now.get(k) for k in before} == before


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_ctrl_c_then_a_kill_then_once_more(
    stage: Stage, story: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    if stage.makes:
        target = project / stage.makes
        shutil.rmtree(target, ignore_errors=True) if target.is_dir() else target.unlink(missing_ok=True)
    before = tree(project)
    done = stopped(stage.midst, signal.SIGINT, *stage.argv, cwd=project)
    assert "error: interrupted" in done.stderr
    assert leftovers(project) == []
    kept(before, project, stage)
    again = (*stage.argv, "--resume") if stage.argv == ("train",) else stage.argv
    if stage.argv == ("train",):
        assert "resume with --resume" in done.stderr
        assert run(list(stage.argv)) == ExitCode.REFUSED
    stopped(stage.last, signal.SIGKILL, *again, cwd=project)
    assert leftovers(project) != []
    kept(before, project, stage)
    assert run(list(again)) == ExitCode.OK
    assert leftovers(project) == []
    if stage.makes != "synthetic":
        later = {"train": (MODEL,), "export": ("model/model.json", "int8.onnx")}.get(stage.argv[0], ())
        assert tree(project, without=(*TIMED, *later)) == tree(story, without=(*TIMED, *later))


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_disk_that_takes_no_more(stage: Stage, project: Path) -> None:
    """A limit of the file size stands in for a full disk; results of earlier runs stay as they were."""
    if stage.makes in ("runs/latest", "out"):
        shutil.rmtree(project / stage.makes)
    before = tree(project)
    done = cellfleet(*stage.argv, cwd=project, expect=ExitCode.STORAGE, code=LIMIT.format(stage.limit))
    assert "error: cannot write " in done.stderr
    assert "hint: " in done.stderr
    assert leftovers(project) == []
    kept(before, project, stage)
    assert not (project / "synthetic").exists()
