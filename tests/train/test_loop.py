"""The training loop: reproducible, interruptible, within its budget, honest about what it did."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from cellfleet.config.model import TrainingSection
from cellfleet.data import DataSetVersion
from cellfleet.errors import TrainError
from cellfleet.lineage import RecordStore
from cellfleet.ports import FixedClock
from cellfleet.train import EpochReport, TrainingRun, load_run, train
from cellfleet.train.checkpoint import Progress
from cellfleet.train.loop import is_over
from support_training import ENVIRONMENT, PROJECT, section, tiny_data

TESTS = Path(__file__).parents[1]
CHILD = """
import sys
from pathlib import Path
from support_training import ENVIRONMENT, PROJECT
from cellfleet.config.model import TrainingSection
from cellfleet.data import DataSetVersion
from cellfleet.train import train
data, settings, folder = sys.argv[1:]
train(
    DataSetVersion.load(data), TrainingSection.model_validate_json(settings), Path(folder), project=PROJECT,
    environment=ENVIRONMENT, report=lambda r: print(r.stage, r.done, flush=True),
)
"""


def go(data: DataSetVersion, settings: TrainingSection, folder: Path, **more: Any) -> TrainingRun:
    return train(data, settings, folder, project=PROJECT, environment=ENVIRONMENT, **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / "best.pt", weights_only=True)
    return loaded


def same_results(a: Path, b: Path) -> bool:
    """Record and weights are equal to the last bit."""
    x, y = weights(a), weights(b)
    assert x.keys() == y.keys()
    equal = all(torch.equal(x[k], y[k]) for k in x)
    return equal and all((a / n).read_bytes() == (b / n).read_bytes() for n in ("training.json", "best.pt"))


@pytest.fixture(scope="module")
def settings(store: str) -> TrainingSection:
    return section(epochs=6, validate_every=2, tracking_uri=store)


@pytest.fixture(scope="module")
def whole(data: DataSetVersion, settings: TrainingSection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    go(data, settings, folder)
    return folder


def test_the_same_seed_in_another_folder(whole: Path, settings: TrainingSection, tmp_path: Path) -> None:
    copy = tiny_data(tmp_path / "data elsewhere \u5b57")
    run = go(copy, settings, tmp_path / "runs" / "other name")
    assert same_results(whole, tmp_path / "runs" / "other name")
    assert run.digest == load_run(whole).digest


def test_another_seed(data: DataSetVersion, whole: Path, store: str, tmp_path: Path) -> None:
    run = go(data, section(epochs=6, validate_every=2, seed=1, tracking_uri=store), tmp_path / "run")
    assert run.digest != load_run(whole).digest
    assert not same_results(whole, tmp_path / "run")


def test_killed_and_resumed(data: DataSetVersion, whole: Path, settings: TrainingSection, tmp_path: Path) -> None:
    data.save(tmp_path / "dataset.json")
    folder = tmp_path / "run"
    argv = [str(tmp_path / "dataset.json"), settings.model_dump_json(), str(folder)]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, *argv], stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            if line.split() == ["training", "3"]:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert not (folder / "training.json").exists()
    with pytest.raises(TrainError, match="unfinished run"):
        go(data, settings, folder)
    seen: list[int] = []
    go(data, settings, folder, resume=True, report=lambda r: seen.append(r.done) if r.stage == "training" else None)
    assert seen[0] >= 4
    assert same_results(whole, folder)
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()


@pytest.mark.parametrize("at", [("training", 1), ("training", 2), ("choosing", 5)])
def test_interrupted_and_resumed(
    data: DataSetVersion, whole: Path, settings: TrainingSection, tmp_path: Path, at: tuple[str, int]
) -> None:
    def interrupt(report: EpochReport) -> None:
        if (report.stage, report.done) == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(data, settings, tmp_path / "run", report=interrupt)
    assert not [p for p in (tmp_path / "run").iterdir() if ".part" in p.name]
    go(data, settings, tmp_path / "run", resume=True)
    assert same_results(whole, tmp_path / "run")


def test_a_finished_run_is_not_trained_again(data: DataSetVersion, whole: Path, settings: TrainingSection) -> None:
    with pytest.raises(TrainError, match="holds a finished run"):
        go(data, settings, whole)
    before = (whole / "training.json").read_bytes()
    stages: set[str] = set()
    go(data, settings, whole, resume=True, report=lambda r: stages.add(r.stage))
    assert "training" not in stages
    assert (whole / "training.json").read_bytes() == before


@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e-3}, {"epochs": 9}, {"seed": 5}, {"features": (8, 16)}, {"augmentation": 0.0}]
)
def test_resume_with_changed_settings(
    data: DataSetVersion, whole: Path, settings: TrainingSection, change: dict[str, Any]
) -> None:
    changed = TrainingSection.model_validate({**settings.model_dump(), **change})
    with pytest.raises(TrainError, match="other data or settings"):
        go(data, changed, whole, resume=True)


def test_resume_with_other_data(whole: Path, settings: TrainingSection, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="other data or settings"):
        go(tiny_data(tmp_path, images=12), settings, whole, resume=True)


def test_resume_without_a_checkpoint(data: DataSetVersion, settings: TrainingSection, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="there is no checkpoint"):
        go(data, settings, tmp_path / "run", resume=True)


def test_the_record(whole: Path, data: DataSetVersion, settings: TrainingSection, tmp_path: Path) -> None:
    run = load_run(whole)
    assert (run.data_set, run.seed, run.channels, run.threads) == (data.digest, 0, ("phase",), 1)
    assert (run.epochs, run.images) == (
        6,
        {"train": len(data.split("train")), "validation": len(data.split("validation"))},
    )
    assert (run.project_commit, run.project_dirty, run.environment) == (None, None, ENVIRONMENT)
    assert run.best_epoch in (2, 4, 6)
    assert [r["epoch"] for r in run.history] == [1, 2, 3, 4, 5, 6]
    assert ["score" in r for r in run.history] == [False, True] * 3
    best = max((r for r in run.history if "score" in r), key=lambda r: r["score"])
    assert best["epoch"] == run.best_epoch
    assert run.section.model_copy(update={"tracking_uri": settings.tracking_uri}) == settings
    assert str(whole) not in (whole / "training.json").read_text()
    assert RecordStore(tmp_path).put("training", run.model_dump(mode="json")) == run.digest
    with (whole / "history.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert [float(r["loss"]) for r in rows] == pytest.approx([r["loss"] for r in run.history], rel=1e-6)
    facts = json.loads((whole / "run.json").read_text())
    assert facts["training"] == run.digest


def test_it_learns(run: TrainingRun) -> None:
    assert run.history[-1]["loss"] < 0.3 * run.history[0]["loss"]
    assert run.validation_ap50 > 0.9
    assert run.target_pixel_size_um == run.training_pixel_size_um == 0.5


def test_what_is_reported(data: DataSetVersion, store: str, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    go(data, section(epochs=3, validate_every=2, tracking_uri=store), tmp_path / "run", report=reports.append)
    training = [r for r in reports if r.stage == "training"]
    assert [(r.done, r.total) for r in training] == [(1, 3), (2, 3), (3, 3)]
    assert [r.validation_ap50 is None for r in training] == [True, False, False]
    assert all(r.loss is not None for r in training)
    assert training[-1].seconds_left == 0
    loading = [r for r in reports if r.stage == "loading"]
    assert len(loading) == loading[-1].total == len(data.split("train")) + len(data.split("validation"))
    choosing = [r for r in reports if r.stage == "choosing"]
    assert len(choosing) == choosing[-1].total


def budgeted(data: DataSetVersion, store: str, folder: Path, act: Callable[[EpochReport], None]) -> TrainingRun:
    """Train for at most a minute of a clock that goes on by 25 s in every epoch."""
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))

    def tick(report: EpochReport) -> None:
        if report.stage == "training":
            clock.elapsed_s += 25
            act(report)

    return go(
        data, section(epochs=50, validate_every=50, minutes=1, tracking_uri=store), folder, clock=clock, report=tick,
        resume=(folder / "checkpoint.pt").exists(),
    )  # fmt: skip


def test_a_budget_in_minutes(data: DataSetVersion, store: str, tmp_path: Path) -> None:
    run = budgeted(data, store, tmp_path / "run", lambda _: None)
    assert (run.epochs, run.best_epoch) == (4, 4)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["training_s"] == 75


def test_a_budget_in_minutes_counts_all_attempts(data: DataSetVersion, store: str, tmp_path: Path) -> None:
    def interrupt(report: EpochReport) -> None:
        if report.done in (2, 4):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            budgeted(data, store, tmp_path / "run", interrupt)
    assert budgeted(data, store, tmp_path / "run", lambda _: None).epochs == 6  # 25 s, 25 s, then on to 75 s


def test_patience(data: DataSetVersion, store: str, tmp_path: Path) -> None:
    # A vanishing learning rate never improves anything after the first validation.
    settings = section(epochs=30, learning_rate=1e-12, patience=2, tracking_uri=store)
    run = go(data, settings, tmp_path / "run")
    assert (run.best_epoch, run.epochs) == (1, 3)


def test_patience_counts_validations_since_the_best() -> None:
    def progress(*scored: int, best: int) -> Progress:
        return Progress(epoch=9, history=[{"epoch": e, "score": 0.1} for e in scored], best_epoch=best)

    patient = section(patience=2)
    assert not is_over(progress(2, 4, best=4), patient)
    assert not is_over(progress(2, 4, 6, best=4), patient)
    assert is_over(progress(2, 4, 6, 8, best=4), patient)
    assert not is_over(progress(2, 4, 6, 8, best=4), section(patience=0))


def test_a_loss_that_is_no_number(data: DataSetVersion, store: str, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="the loss is nan in epoch") as caught:
        go(data, section(learning_rate=1e30, tracking_uri=store), tmp_path / "run")
    assert "learning_rate" in caught.value.hint
    assert not (tmp_path / "run" / "training.json").exists()
