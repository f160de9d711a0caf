"""Find and read a project: file, then environment, then flags; merged once, strictly typed.

An environment variable is ``CELLFLEET_<SECTION>__<KEY>`` (``CELLFLEET_TRAINING__EPOCHS=20``), a flag is
``--set section.key=value``. An unknown key is an error that names the nearest known key. There is no global settings
object: commands load a Project and pass its sections on.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cellfleet.config.fleet import AgentSection, CameraSection, DeviceSection, FleetSection
from cellfleet.config.model import (
    BundleSection,
    DataSection,
    EvaluationSection,
    GateSection,
    LineageSection,
    ModelSection,
    OptimizeSection,
    Section,
    SegmentSection,
    TrainingSection,
)
from cellfleet.errors import ConfigError

PROJECT_FILE = "cellfleet.toml"
ENV_PREFIX = "CELLFLEET_"


class Settings(Section):
    """All settings of a project, section by section."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    gate: GateSection = GateSection()
    optimize: OptimizeSection = OptimizeSection()
    bundle: BundleSection = BundleSection()
    evaluation: EvaluationSection = EvaluationSection()
    segment: SegmentSection = SegmentSection()
    lineage: LineageSection = LineageSection()
    fleet: FleetSection = FleetSection()
    device: DeviceSection = DeviceSection()
    camera: CameraSection = CameraSection()
    agent: AgentSection = AgentSection()


class Project(Section):
    """A folder with a project file, and its settings.

    Attributes:
        root: the folder; relative paths in the settings are relative to it.
        settings: the merged settings.
        found: False if there is no project file and the defaults apply.
    """

    root: Path
    settings: Settings
    found: bool

    def path(self, relative: str | Path) -> Path:
        """Resolve a path of the settings to an absolute path."""
        return (self.root / Path(relative).expanduser()).absolute()


def load_project(start: Path, *, environ: Mapping[str, str] = os.environ, overrides: Iterable[str] = ()) -> Project:
    """Find cellfleet.toml in ``start`` or a folder above it and merge file, environment and overrides.

    Args:
        start: a folder, or a project file itself; it must exist.
        environ: environment variables.
        overrides: ``section.key=value`` strings; values are TOML; a bare word is a string.

    Returns:
        The project, with complete, typed settings.

    Raises:
        ConfigError: missing folder or file, unreadable file, invalid TOML, unknown key, invalid type or value; the
            message names file and key.
    """
    if not start.exists():
        raise ConfigError(f"{start}: no such project folder or file", hint="make one with `cellfleet init`")
    file = start if start.is_file() else _find(start.absolute())
    merged: dict[str, dict[str, Any]] = {}
    origin: dict[str, str] = {}
    if file is not None:
        _merge(merged, origin, _read_toml(file), str(file))
    _merge(merged, origin, _from_environ(environ), "the environment")
    for text in overrides:
        _merge(merged, origin, _from_override(text), f"--set {text}")
    settings = _validate(merged, origin)
    root = file.parent if file is not None else start.absolute()
    return Project(root=root, settings=settings, found=file is not None)


def nearest(word: str, known: Iterable[str]) -> str:
    """Make a hint that names the nearest known word, or lists all known words.

    Args:
        word: what the user wrote.
        known: valid words.

    Returns:
        The hint.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid names: {', '.join(names)}"


def _find(folder: Path) -> Path | None:
    return next((d / PROJECT_FILE for d in (folder, *folder.parents) if (d / PROJECT_FILE).is_file()), None)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read {file}: {e.strerror}", hint="check the path and its permissions") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file} is not valid TOML: {e}", hint="fix that line; text values need quotes") from e


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key in sorted(environ):
        if not key.startswith(ENV_PREFIX):
            continue
        section, two, name = key.removeprefix(ENV_PREFIX).lower().partition("__")
        if two:
            out.setdefault(section, {})[name] = _value(environ[key])
            continue
        section, one, name = section.partition("_")
        if one and section in Settings.model_fields:
            raise ConfigError(
                f"the environment: {key} is not a setting",
                hint=f"use two underscores between section and key: {ENV_PREFIX}{section.upper()}__{name.upper()}",
            )
    return out


def _from_override(text: str) -> dict[str, Any]:
    path, eq, raw = text.partition("=")
    section, dot, key = path.strip().partition(".")
    if not eq or not dot or not key:
        raise ConfigError(f"--set {text!r} is not section.key=value", hint="for example: --set training.epochs=20")
    return {section: {key: _value(raw.strip())}}


def _value(raw: str) -> Any:
    try:
        return tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return raw


def _merge(into: dict[str, dict[str, Any]], origin: dict[str, str], new: Mapping[str, Any], where: str) -> None:
    sections = Settings.model_fields
    for section, values in new.items():
        if section not in sections:
            raise ConfigError(f"{where}: unknown section [{section}]", hint=nearest(section, sections))
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: {section} must be a section", hint=f"write [{section}] on its own line")
        known = _section_type(section).model_fields
        for key, value in values.items():
            if key not in known:
                raise ConfigError(f"{where}: unknown key {section}.{key}", hint=nearest(key, known))
            into.setdefault(section, {})[key] = value
            origin[f"{section}.{key}"] = where


def _section_type(section: str) -> type[Section]:
    kind = Settings.model_fields[section].annotation
    assert isinstance(kind, type)
    assert issubclass(kind, Section)
    return kind


def _validate(merged: Mapping[str, Any], origin: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(p) for p in first["loc"][:2])
        where = origin.get(key, "the settings")
        raise ConfigError(f"{where}: {key}: {first['msg']} (got {first['input']!r})", hint="fix that value") from e
