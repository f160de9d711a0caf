"""Settings: file, then environment, then flags; mistakes are named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.cli.init import project_text
from cellfleet.config import PROJECT_FILE, Settings, load_project, nearest
from cellfleet.errors import ConfigError


def project(folder: Path, text: str) -> Path:
    (folder / PROJECT_FILE).write_text(text, encoding="utf-8")
    return folder


def test_flags_beat_environment_beats_file(tmp_path: Path) -> None:
    project(tmp_path, "[training]\nepochs = 1\nseed = 1\nbatch_size = 1\n")
    environ = {"CELLFLEET_TRAINING__EPOCHS": "2", "CELLFLEET_TRAINING__SEED": "2", "HOME": "/"}
    training = load_project(tmp_path, environ=environ, overrides=["training.epochs=3"]).settings.training
    assert (training.epochs, training.seed, training.batch_size) == (3, 2, 1)


def test_the_project_is_found_from_a_folder_below(tmp_path: Path) -> None:
    project(tmp_path, '[data]\nsource = "plates"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    found = load_project(below, environ={})
    assert found.root == tmp_path
    assert found.path(found.settings.data.source) == tmp_path / "plates"


def test_no_project_file_means_the_defaults(tmp_path: Path) -> None:
    found = load_project(tmp_path, environ={})
    assert not found.found
    assert found.settings == Settings()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[trainig]\nepochs = 3\n", "unknown section [trainig]", "did you mean 'training'?"),
        ("[training]\nepoch = 3\n", "unknown key training.epoch", "did you mean 'epochs'?"),
        ('[training]\nepochs = "many"\n', "training.epochs", "fix that value"),
        ("[training]\nepochs = 0\n", "greater than or equal to 1", "fix that value"),
        ("[training\n", "not valid TOML", "fix that line"),
        ("training = 3\n", "must be a section", "[training]"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_project(project(tmp_path, text), environ={})
    assert message in str(caught.value)
    assert str(tmp_path / PROJECT_FILE) in str(caught.value)
    assert hint in caught.value.hint


def test_a_mistake_in_the_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the environment: unknown key training\.epoch"):
        load_project(tmp_path, environ={"CELLFLEET_TRAINING__EPOCH": "2"})


@pytest.mark.parametrize("flag", ["epochs=3", "training.epochs", "training.=3", "training epochs 3"])
def test_a_flag_of_the_wrong_form_is_explained(tmp_path: Path, flag: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path, environ={}, overrides=[flag])
    assert "training.epochs=20" in caught.value.hint


@given(st.text(max_size=60))
def test_no_flag_ends_in_anything_but_settings_or_a_config_error(flag: str) -> None:
    hints = ["loaded"]
    try:
        load_project(Path(__file__).parent, environ={}, overrides=[flag])
    except ConfigError as e:
        hints = [e.hint]
    assert all(hints)


def test_the_written_project_file_names_every_setting_and_loads_as_the_defaults(tmp_path: Path) -> None:
    text = project_text({"model.name": "my-cells"}, tuple(Settings.model_fields))
    loaded = load_project(project(tmp_path, text), environ={}).settings
    assert loaded.model.name == "my-cells"
    assert loaded.model_copy(update={"model": Settings().model}) == Settings()
    for section, info in Settings.model_fields.items():
        kind = info.annotation
        assert isinstance(kind, type)
        for key, field in kind.model_fields.items():
            assert f"\n# {key} =" in text or f"\n{key} =" in text, f"{section}.{key}"
            assert field.description, f"{section}.{key} has no description"


def test_the_commented_defaults_are_valid_toml_and_the_defaults(tmp_path: Path) -> None:
    lines = project_text({"model.name": "cells"}).splitlines()
    live = [x.removeprefix("# ") for x in lines if (" = " in x and not x.endswith(" =")) or x.startswith("[")]
    tomllib.loads("\n".join(live))
    assert load_project(project(tmp_path, "\n".join(live)), environ={}).settings == Settings()


def test_a_project_that_is_not_there_is_an_error_not_the_defaults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such project folder or file") as caught:
        load_project(tmp_path / "my-cels", environ={})
    assert "cellfleet init" in caught.value.hint


def test_a_variable_with_one_underscore_is_told_and_others_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CELLFLEET_TRAINING_EPOCHS is not a setting") as caught:
        load_project(tmp_path, environ={"CELLFLEET_TRAINING_EPOCHS": "20"})
    assert "CELLFLEET_TRAINING__EPOCHS" in caught.value.hint
    load_project(tmp_path, environ={"CELLFLEET_CACHE": "x", "CELLFLEET_SHARED_DATA": "y", "TRAINING_EPOCHS": "20"})


def test_nearest_lists_all_when_nothing_is_near() -> None:
    assert nearest("zzz", ["alpha", "beta"]) == "valid names: alpha, beta"
