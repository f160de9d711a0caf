"""The training record: what a run was made of and how it went; its digest is the run's identity.

``training.json`` holds the record, the same for the same data, settings, code and machine. ``run.json`` beside it holds
what is not reproducible: times, host, MLflow's id.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from cellfleet._version import __version__
from cellfleet.bundle.spec import Head, ObjectParams, Record, Sha256
from cellfleet.canonical import canonical_bytes, digest_of
from cellfleet.config.model import TrainingSection
from cellfleet.data import DataSetVersion
from cellfleet.errors import TrainError
from cellfleet.lineage.state import ProjectState
from cellfleet.metrics import Numbers
from cellfleet.ports import Clock, write_atomic
from cellfleet.train.checkpoint import Progress
from cellfleet.train.grid import TrainingGrid

RECORD = "training.json"


class TrainingRun(Record):
    """A finished training run.

    Attributes:
        data_set: digest of the data set version.
        seed, settings: settings that decide the weights (paths and budgets in minutes are left out).
        heads, channels: of the network.
        target_pixel_size_um, training_pixel_size_um: see ModelSpec.
        epochs, best_epoch: epochs trained, and the epoch whose weights were kept.
        history: a row per epoch.
        objects: the chosen object parameters.
        validation_ap50, validation_map: on the validation split with these.
        images: number of images by split.
        project_commit, project_dirty, environment, cellfleet_version: what the run stands on; None: no git.
        threads: CPU threads, which can change the last bits of a sum.
    """

    format_version: Literal[1] = 1
    data_set: Sha256
    seed: int
    settings: dict[str, object]
    heads: tuple[Head, ...]
    channels: tuple[str, ...]
    target_pixel_size_um: float | None
    training_pixel_size_um: float | None
    epochs: int
    best_epoch: int
    history: tuple[dict[str, float], ...]
    objects: ObjectParams
    validation_ap50: float
    validation_map: float
    images: dict[str, int]
    project_commit: str | None
    project_dirty: bool | None
    environment: Sha256
    cellfleet_version: str
    threads: int

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical record."""
        return digest_of(self.model_dump(mode="json"))

    @property
    def section(self) -> TrainingSection:
        """The settings as a section."""
        return TrainingSection.model_validate(self.settings)

    @classmethod
    def finished(
        cls,
        data: DataSetVersion,
        section: TrainingSection,
        heads: tuple[Head, ...],
        channels: tuple[str, ...],
        grid: TrainingGrid,
        progress: Progress,
        params: ObjectParams,
        numbers: Numbers,
        project: ProjectState,
        environment: str,
        threads: int,
    ) -> TrainingRun:
        """Put the record together.

        Args:
            data: the data set version.
            section: settings of the training.
            heads: of the network.
            channels: input channels, in order.
            grid: the model's grid.
            progress: epochs, and the best of them.
            params: object parameters chosen on the validation split.
            numbers: of the validation split.
            project: commit and state of the project folder.
            environment: digest of libraries and versions.
            threads: CPU threads that were used.

        Returns:
            The record; its digest names the run.
        """
        return cls(
            data_set=data.digest,
            seed=section.seed,
            settings=section.model_dump(mode="json", exclude={"runs", "tracking_uri", "experiment"}),
            heads=heads,
            channels=channels,
            target_pixel_size_um=grid.target_pixel_size_um,
            training_pixel_size_um=grid.training_pixel_size_um,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch,
            history=tuple(progress.history),
            objects=params,
            validation_ap50=numbers.ap50,
            validation_map=numbers.map,
            images={s: len(data.split(s)) for s in ("train", "validation")},
            project_commit=project.commit,
            project_dirty=project.dirty,
            environment=environment,
            cellfleet_version=__version__,
            threads=threads,
        )


def write_run(run_dir: Path, run: TrainingRun, progress: Progress, clock: Clock) -> None:
    """Write training.json and run.json."""
    facts = {
        "training": run.digest,
        "finished": clock.now().isoformat(timespec="seconds"),
        "training_s": round(progress.elapsed_s, 1),
        "host": platform.node(),
        "machine": platform.machine(),
        "mlflow_run": progress.tracking_run,
    }
    write_atomic(run_dir / "run.json", json.dumps(facts, indent=1).encode())
    write_atomic(run_dir / RECORD, canonical_bytes(run.model_dump(mode="json")))


def write_history(run_dir: Path, progress: Progress) -> None:
    """Write history.csv, one row per epoch."""
    columns = ["epoch", "loss", "learning_rate", "validation_ap50", "validation_map", "score"]
    lines = [",".join(columns)]
    lines += [",".join(f"{row[c]:.8g}" if c in row else "" for c in columns) for row in progress.history]
    write_atomic(run_dir / "history.csv", ("\n".join(lines) + "\n").encode())


def load_run(run_dir: Path) -> TrainingRun:
    """Read the record of a finished run.

    Raises:
        TrainError: the run is not finished, or its record was changed by hand beyond recognition.
    """
    path = run_dir / RECORD
    try:
        return TrainingRun.model_validate_json(path.read_bytes())
    except FileNotFoundError as e:
        raise TrainError(
            f"{run_dir} holds no finished training run", hint="run `cellfleet train`, or --resume it"
        ) from e
    except OSError as e:
        raise TrainError(f"cannot read {path}: {e.strerror}", hint="check its permissions") from e
    except ValidationError as e:
        raise TrainError(f"{path} is not a training record: {e.errors()[0]['msg']}", hint="train again") from e
