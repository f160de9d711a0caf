"""A data set version, a bundle and its evaluation, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellfleet.bundle import Bundle, open_bundle
from cellfleet.config.model import GateSection
from cellfleet.data import DataSetVersion
from cellfleet.evaluate.write import Written, evaluate_model
from cellfleet.lineage import RecordStore
from support_bundle import tiny_bundle
from support_evaluation import disc_data


@pytest.fixture(scope="session")
def disc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the data set version and the bundle."""
    return tmp_path_factory.mktemp("discs")


@pytest.fixture(scope="session")
def data(disc_root: Path) -> DataSetVersion:
    """Ten frames of discs, four of them held out."""
    return disc_data(disc_root)


@pytest.fixture(scope="session")
def bundle(disc_root: Path, data: DataSetVersion) -> Bundle:
    """A bundle that finds discs."""
    return open_bundle(tiny_bundle(disc_root, data_set=data.digest))


@pytest.fixture(scope="session")
def written(disc_root: Path, data: DataSetVersion, bundle: Bundle) -> Written:
    """The bundle's evaluation on the disk."""
    return evaluate_model(
        bundle,
        data,
        disc_root / "evaluations" / "one",
        policy=GateSection(),
        records=RecordStore(disc_root / "records"),
        key=disc_root / "keys" / "decision.pem",
        approver="Ada",
    )
