"""Bad settings and data fail before the first batch, with the setting's name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cellfleet.bundle.spec import Head
from cellfleet.config import load_project
from cellfleet.config.model import TrainingSection
from cellfleet.data import DataSetVersion
from cellfleet.data.records import Entry
from cellfleet.errors import ConfigError, DataError, StorageError, TrainError
from cellfleet.train import EpochReport, train
from cellfleet.train.networks import DEFAULT_HEADS
from support_training import ENVIRONMENT, PROJECT, section, tiny_data, two_classes


def refused(
    data: DataSetVersion,
    settings: TrainingSection,
    folder: Path,
    error: type[TrainError | ConfigError | StorageError] = TrainError,
    **more: Any,
) -> str:
    """The message by which training is refused before an image was read."""
    seen: list[EpochReport] = []
    with pytest.raises(error) as caught:
        train(data, settings, folder, project=PROJECT, environment=ENVIRONMENT, report=seen.append, **more)
    assert seen == []
    assert caught.value.hint
    return str(caught.value)


def changed(data: DataSetVersion, **fields: Any) -> DataSetVersion:
    """The data set version with fields of every entry changed."""
    return DataSetVersion.make([e.model_copy(update=fields) for e in data.entries], data.root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": ()}, "training.features"),
        ({"features": (16,)}, "training.features"),
        ({"features": (2,) * 8}, "training.features"),
        ({"features": (16, 0, 8)}, "training.features"),
        ({"features": (16, -8)}, "training.features"),
        ({"features": (16, 10**7)}, "training.features"),
        ({"crop_px": 33}, "training.crop_px is 33; it must be a multiple of 4"),
        ({"crop_px": 32, "features": (4,) * 6}, "at least 64"),
        ({"crop_px": 4096}, "no image is larger than 96 pixels"),
        ({"target_pixel_size_um": 20.0}, "no image is larger than 2 pixels"),
        ({"tracking_uri": "what is this"}, "tracking_uri"),
    ],
)
def test_settings_that_cannot_work(
    data: DataSetVersion, store: str, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    message = refused(data, section(**{"tracking_uri": store, **change}), tmp_path / "run", ConfigError)
    assert re.search(said, message)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:////dev/null/x.db", "cannot be used"),
        ("http://user:secret@localhost:1", r"user:\*\*\*@localhost"),
    ],
)
def test_a_tracking_store_that_does_not_answer(data: DataSetVersion, tmp_path: Path, uri: str, said: str) -> None:
    assert re.search(said, refused(data, section(tracking_uri=uri), tmp_path / "run"))


@pytest.mark.parametrize(
    "text",
    [
        "training.epochs=0",
        "training.epochs=ten",
        "training.crop_px=16",
        "training.learning_rate=-1",
        "training.learning_rate=inf",
        "training.learning_rate=nan",
        "training.batch_size=0",
        "training.seed=-1",
        "training.augmentation=9",
        "training.minutes=0",
        "training.target_pixel_size_um=fine",
        "training.target_pixel_size_um=-1.0",
        "training.validate_every=0",
        "training.epoch=3",
        "model.name=My Model",
        "model.version=1",
        "model.version=v1.0.0",
    ],
)
def test_odd_values_fail_when_the_settings_are_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=text.partition("=")[0]):
        load_project(tmp_path, environ={}, overrides=[text])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_such_split(data: DataSetVersion, tmp_path: Path, split: str) -> None:
    others = DataSetVersion.make([e for e in data.entries if e.split != split], data.root)
    assert f"no {split} images" in refused(others, section(), tmp_path / "run")


def test_no_objects(data: DataSetVersion, tmp_path: Path) -> None:
    assert "no training mask holds an object" in refused(changed(data, objects=0), section(), tmp_path / "run")


def test_different_channels(data: DataSetVersion, tmp_path: Path) -> None:
    def other(e: Entry) -> Entry:
        return e.model_copy(update={"channels": ("gfp",)}) if e.split == "validation" else e

    mixed = DataSetVersion.make([other(e) for e in data.entries], data.root)
    assert "different channels: gfp; phase" in refused(mixed, section(), tmp_path / "run")


@pytest.mark.parametrize("channels", [("phase contrast (x)",), ("a", "a")])
def test_channel_names_that_a_model_cannot_have(
    data: DataSetVersion, tmp_path: Path, channels: tuple[str, ...]
) -> None:
    assert "channel" in refused(changed(data, channels=channels), section(), tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (section(demands_pixel_size=True), "demands_pixel_size is set but the pixel size of"),
        (section(target_pixel_size_um=0.7), "target_pixel_size_um is 0.7 but the pixel size of"),
    ],
)
def test_an_unknown_pixel_size(data: DataSetVersion, tmp_path: Path, settings: TrainingSection, said: str) -> None:
    assert said in refused(changed(data, pixel_size_um=None), settings, tmp_path / "run")


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ((), "foreground and a distance head"),
        ((DEFAULT_HEADS[0],), "foreground and a distance head"),
        ((DEFAULT_HEADS[0], Head(name="foreground", kind="distance")), "head names must differ"),
        ((*DEFAULT_HEADS, Head(name="image", kind="distance")), "called image"),
        ((*two_classes()[:2], Head(name="kind", kind="classes")), "two classes"),
        ((*two_classes()[:2], Head(name="kind", kind="classes", classes=("a", "b", "c"))), "two classes"),
    ],
)
def test_heads_that_cannot_be_trained(data: DataSetVersion, tmp_path: Path, heads: tuple[Head, ...], said: str) -> None:
    assert said in refused(data, section(), tmp_path / "run", heads=heads)


def test_a_run_folder_that_cannot_be_written(data: DataSetVersion, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file is in the way")
    assert str(tmp_path / "run") in refused(data, section(), tmp_path / "run", StorageError)


def test_an_image_that_changed(tmp_path: Path, store: str) -> None:
    data = tiny_data(tmp_path / "data", images=8)
    image = tmp_path / "data" / data.split("train")[0].image.uri
    image.write_bytes(image.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match="changed since it was frozen"):
        train(data, section(tracking_uri=store), tmp_path / "run", project=PROJECT, environment=ENVIRONMENT)
