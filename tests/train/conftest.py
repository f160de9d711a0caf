"""Shared by all tests of training: one data set, one tracking store, one trained and exported network."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellfleet.config.model import ModelSection
from cellfleet.data import DataSetVersion
from cellfleet.train import TrainingRun, train
from cellfleet.train.exporting.export import Exported, export
from support_training import ENVIRONMENT, PROJECT, section, tiny_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSetVersion:
    """Sixteen frames of discs in two strata."""
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking URI; making a new store takes seconds, so all runs share one."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def run_dir(data: DataSetVersion, store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that learnt to find discs."""
    folder = tmp_path_factory.mktemp("runs") / "learnt"
    settings = section(epochs=16, validate_every=4, tracking_uri=store)
    train(data, settings, folder, project=PROJECT, environment=ENVIRONMENT)
    return folder


@pytest.fixture(scope="session")
def run(run_dir: Path) -> TrainingRun:
    """Its record."""
    return TrainingRun.model_validate_json((run_dir / "training.json").read_bytes())


@pytest.fixture(scope="session")
def exported(run_dir: Path, data: DataSetVersion, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The network of that run as a model folder."""
    return export(run_dir, tmp_path_factory.mktemp("export") / "model", ModelSection(name="discs"), data)
