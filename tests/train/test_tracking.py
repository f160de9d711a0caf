"""Runs are found again in MLflow's store; the store never decides what comes out of training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from cellfleet.data import DataSetVersion
from cellfleet.errors import TrainError
from cellfleet.train import EpochReport, TrainingRun, train
from cellfleet.train.tracking import Tracker
from support_training import ENVIRONMENT, PROJECT, section


@pytest.fixture(scope="module")
def client(store: str) -> Any:
    """MLflow's own client on the shared store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=store)


def runs(client: Any, experiment: str) -> list[Any]:
    """The runs of an experiment, the oldest first."""
    found = client.get_experiment_by_name(experiment)
    return list(reversed(client.search_runs([found.experiment_id])))


def test_a_run_with_settings_and_numbers(client: Any, run: TrainingRun, data: DataSetVersion) -> None:
    (found,) = [r for r in runs(client, "cellfleet") if r.info.run_name == "learnt"]
    assert found.info.status == "FINISHED"
    assert found.data.params["epochs"] == "16"
    assert found.data.params["features"] == "(8, 16, 32)"
    assert found.data.tags["data_set"] == data.digest
    assert found.data.tags["project_commit"] == "no git"
    assert found.data.metrics["chosen_ap50"] == pytest.approx(run.validation_ap50)
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(int(r["epoch"]), r["loss"]) for r in run.history]


def test_an_interrupted_run_goes_on_as_the_same(client: Any, data: DataSetVersion, store: str, tmp_path: Path) -> None:
    settings = section(epochs=2, tracking_uri=store, experiment="resumed")

    def interrupt(report: EpochReport) -> None:
        if report.stage == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, settings, tmp_path / "run", project=PROJECT, environment=ENVIRONMENT, report=interrupt)
    assert [r.info.status for r in runs(client, "resumed")] == ["KILLED"]
    train(data, settings, tmp_path / "run", project=PROJECT, environment=ENVIRONMENT, resume=True)
    (found,) = runs(client, "resumed")
    assert found.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(found.info.run_id, "loss")] == [1, 2]


def test_a_failed_run_is_said_to_be_so(client: Any, data: DataSetVersion, store: str, tmp_path: Path) -> None:
    settings = section(learning_rate=1e30, tracking_uri=store, experiment="failed")
    with pytest.raises(TrainError):
        train(data, settings, tmp_path / "run", project=PROJECT, environment=ENVIRONMENT)
    assert [r.info.status for r in runs(client, "failed")] == ["FAILED"]


def test_a_store_that_fails_later_is_told_but_ends_nothing(store: str, tmp_path: Path) -> None:
    tracker = Tracker(store, tmp_path, "later")
    tracker.start("run", {"a": 1}, {})
    assert tracker.log(1, {"loss": 1.0}) == ""
    tracker.run_id = "0" * 32
    for problem in (tracker.log(2, {"loss": 0.5}), tracker.end("FINISHED")):
        assert "cannot be used" in problem
        assert "\n" not in problem


def test_the_default_store_lies_beside_the_runs(tmp_path: Path) -> None:
    tracker = Tracker("", tmp_path / "runs", "default")
    assert tracker.uri == f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    assert (tmp_path / "runs" / "mlflow.db").stat().st_size > 0
    again = Tracker("", tmp_path / "runs", "default")
    assert again.start("a", {}, {}) != tracker.start("b", {}, {})
