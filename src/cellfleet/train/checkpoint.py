"""Checkpoints: all that training needs to go on as if it had never stopped, in one file written atomically."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cellfleet.errors import TrainError
from cellfleet.ports import atomic_path

FORMAT = 1


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        epoch: epochs finished.
        history: one row per finished epoch: epoch, loss, learning_rate, and validation numbers where there was one.
        best_epoch: epoch of the best validation so far; 0 when there was none.
        best_score: its score.
        elapsed_s: training time of all attempts together.
        tracking_run: id of the run in MLflow.
    """

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -1.0
    elapsed_s: float = 0.0
    tracking_run: str = ""


def save_checkpoint(path: Path, identity: str, progress: Progress, tensors: dict[str, Any]) -> None:
    """Write a checkpoint durably.

    Args:
        path: the file.
        identity: digest of everything that must be equal for the run to go on.
        progress: how far training has come.
        tensors: state dicts by name.

    Raises:
        StorageError: the disk refuses; the previous checkpoint is then still there.
    """
    with atomic_path(path) as part:
        torch.save({"format": FORMAT, "identity": identity, "progress": vars(progress), **tensors}, part)


def load_checkpoint(path: Path, identity: str) -> tuple[Progress, dict[str, Any]]:
    """Read a checkpoint; only tensors and plain data are accepted from the file.

    Raises:
        TrainError: absent, damaged, or made with other data or settings.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = torch.load(path, map_location="cpu", weights_only=True)
        progress, found = Progress(**stored["progress"]), stored["identity"]
    except FileNotFoundError as e:
        raise TrainError(f"there is no checkpoint {path}", hint="train without --resume first") from e
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as e:
        raise TrainError(f"{path} is not a readable checkpoint: {e}", hint="train again without --resume") from e
    if stored.get("format") != FORMAT or found != identity:
        raise TrainError(
            f"{path} belongs to a run with other data or settings",
            hint="put the data and settings back as they were, or train again without --resume",
        )
    return progress, stored
