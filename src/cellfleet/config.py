"""Settings of a project: the file cellfleet.toml, then the environment, then flags; merged once, strictly typed.

An environment variable is ``CELLFLEET_<SECTION>__<KEY>`` (``CELLFLEET_TRAINING__EPOCHS=20``), a flag is
``--set section.key=value``. An unknown key is an error that names the nearest known one. There is no global settings
object: commands load a Project and hand its sections on.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellfleet.errors import ConfigError

PROJECT_FILE = "cellfleet.toml"
ENV_PREFIX = "CELLFLEET_"


class Section(BaseModel):
    """Base of settings: frozen, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSection(Section):
    """[model]: what the model is called."""

    name: str = Field(
        default="cells",
        pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$",
        description="name of the model (lower case, digits, - . _)",
    )
    version: str = Field(
        default="0.1.0", pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$", description="SemVer version of the model"
    )
    description: str = Field(default="", description="one sentence for the model card")
    license: str = Field(default="CC-BY-4.0", description="SPDX identifier of the model's licence")
    authors: tuple[str, ...] = Field(default=("unnamed",), description="names for the model card")


class DataSection(Section):
    """[data]: where the images are and how they are split."""

    source: str = Field(default="data", description="folder with images/ and masks/, or a COCO JSON file")
    images: str = Field(default="", description="COCO only: folder of the image files (default: beside the JSON)")
    channels: tuple[str, ...] = Field(
        default=("phase",), description="names of the channels, in the order of the files"
    )
    pixel_size_um: float | None = Field(
        default=None, gt=0, description="pixel size where neither file nor index.csv tells it"
    )
    manifest: str = Field(default="dataset.json", description="where `data freeze` writes the data set version")
    validation_fraction: float = Field(default=0.15, gt=0, lt=1, description="part of the images for validation")
    test_fraction: float = Field(default=0.2, gt=0, lt=1, description="part of the images held out for evaluation")
    min_object_area_px: int = Field(default=10, ge=0, description="smaller objects are reported as fragments")


class TrainingSection(Section):
    """[training]: network, budget and augmentation."""

    runs: str = Field(default="runs", description="folder of training runs")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of everything random in training")
    epochs: int = Field(default=60, ge=1, description="budget in epochs")
    minutes: float | None = Field(
        default=None, gt=0, description="budget in minutes; ends training early (not reproducible)"
    )
    patience: int = Field(default=0, ge=0, description="stop after so many validations without improvement (0: never)")
    validate_every: int = Field(default=5, ge=1, description="epochs between validations")
    batch_size: int = Field(default=8, ge=1, description="crops in a batch")
    crop_px: int = Field(default=192, ge=32, description="side of a training crop, in pixels of the model's grid")
    crops_per_image: int = Field(default=2, ge=1, description="crops taken from each image in an epoch")
    learning_rate: float = Field(default=2e-3, gt=0, description="peak learning rate (AdamW, one cycle)")
    weight_decay: float = Field(default=1e-4, ge=0, description="weight decay of AdamW")
    features: tuple[int, ...] = Field(default=(16, 32, 64, 128), description="channels of the U-Net, level by level")
    residual_units: int = Field(default=2, ge=0, description="residual units per level of the MONAI UNet")
    target_pixel_size_um: Annotated[float, Field(gt=0)] | Literal["auto", "native"] = Field(
        default="auto",
        description="pixel size of the model's grid in um; auto: from the cells' size; native: as the images are",
    )
    cell_diameter_px: float = Field(
        default=28.0, gt=4, description="median cell diameter on the model's grid that auto aims at"
    )
    demands_pixel_size: bool = Field(default=False, description="refuse frames of unknown pixel size")
    augmentation: float = Field(default=1.0, ge=0, le=2, description="strength of augmentation; 0 is none")
    threads: int = Field(default=0, ge=0, description="CPU threads (0: all cores)")
    tracking_uri: str = Field(default="", description="MLflow tracking URI (default: a SQLite file in the runs folder)")
    experiment: str = Field(default="cellfleet", description="MLflow experiment")


class GateSection(Section):
    """[gate]: what a model must reach to be released; every threshold that is absent is not asked for."""

    min_ap50: float | None = Field(default=0.5, ge=0, le=1, description="least AP@0.5 on the held-out split")
    min_map: float | None = Field(default=None, ge=0, le=1, description="least mean AP over IoU 0.5-0.95")
    min_dice: float | None = Field(default=0.7, ge=0, le=1, description="least Dice of the foreground")
    max_count_error: float | None = Field(default=None, ge=0, description="greatest relative count error")
    max_confluence_error: float | None = Field(
        default=None, ge=0, description="greatest confluence error, percentage points"
    )
    min_stratum_ap50: float | None = Field(default=0.3, ge=0, le=1, description="least AP@0.5 in every stratum")
    max_champion_loss_ap50: float | None = Field(
        default=0.01, ge=0, le=1, description="greatest loss of AP@0.5 against the champion"
    )


class OptimizeSection(Section):
    """[optimize]: the INT8 variant and its gate."""

    int8: bool = Field(default=True, description="try an INT8 variant")
    calibration_frames: int = Field(default=16, ge=1, description="training frames for calibration")
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax", description="how ranges are chosen"
    )
    max_ap50_loss: float = Field(default=0.01, ge=0, le=1, description="greatest loss of AP@0.5 that keeps a variant")
    keep_fp32: tuple[str, ...] = Field(
        default=(), description="parts of names of nodes or weights that stay fp32 (normalisation and heads always do)"
    )
    openvino: bool = Field(default=True, description="offer both networks to OpenVINO as well, where it is installed")


class BundleSection(Section):
    """[bundle]: what goes into the bundle."""

    out: str = Field(default="bundles", description="folder of bundles")
    golden_frames: int = Field(default=3, ge=1, le=16, description="frames for the self-test")
    golden_px: int = Field(default=384, ge=64, description="greatest side of a golden frame")
    golden_margin_ap50: float = Field(
        default=0.02, ge=0, le=1, description="AP@0.5 that a device may lose on golden frames"
    )


class EvaluationSection(Section):
    """[evaluation]: the report."""

    out: str = Field(default="evaluations", description="folder of evaluations")
    worst_frames: int = Field(default=12, ge=1, description="frames shown in the report, worst first")
    approver: str = Field(default="", description="who approves; recorded in the decision record")


class SegmentSection(Section):
    """[segment]: how frames are segmented."""

    variant: str = Field(
        default="", description="engine/precision to use (default: the fastest on this machine that passed)"
    )
    tile_px: int = Field(default=1024, ge=64, description="frames with a longer side (on the model's grid) are tiled")
    threads: int = Field(default=0, ge=0, description="CPU threads (0: all cores)")


class LineageSection(Section):
    """[lineage]: records and keys."""

    records: str = Field(default="records", description="folder of signed and digested records")
    key: str = Field(
        default="keys/decision.pem", description="Ed25519 private key that signs decision records (made if absent)"
    )


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


class Project(Section):
    """A folder with a project file, and its settings.

    Attributes:
        root: the folder; relative paths in the settings start here.
        settings: the merged settings.
        found: False when there was no project file and the defaults hold.
    """

    root: Path
    settings: Settings
    found: bool

    def path(self, relative: str | Path) -> Path:
        """A path of the settings as an absolute path."""
        return (self.root / Path(relative).expanduser()).absolute()


def load_project(start: Path, *, environ: Mapping[str, str] = os.environ, overrides: Iterable[str] = ()) -> Project:
    """Find cellfleet.toml in ``start`` or a folder above it and merge file, environment and overrides.

    Args:
        start: a folder, or a project file itself; it must exist.
        environ: environment variables.
        overrides: ``section.key=value`` strings; values are TOML, a bare word counts as a string.

    Raises:
        ConfigError: no such folder or file, unreadable file, bad TOML, unknown key, wrong type or value; the message
            names file and key.
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
    """A sentence that names the nearest known word, or lists all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(names)}"


def _find(folder: Path) -> Path | None:
    return next((d / PROJECT_FILE for d in (folder, *folder.parents) if (d / PROJECT_FILE).is_file()), None)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read {file}: {e.strerror}", hint="check the path and its permissions") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file} is not valid TOML: {e}", hint="mend that line; values of text need quotes") from e


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
                f"the environment: {key} is no setting",
                hint=f"two underscores stand between section and key: {ENV_PREFIX}{section.upper()}__{name.upper()}",
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
            raise ConfigError(f"{where}: {section} must be a section", hint=f"write [{section}] on a line of its own")
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
        raise ConfigError(f"{where}: {key}: {first['msg']} (got {first['input']!r})", hint="mend that value") from e
