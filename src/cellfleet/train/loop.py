"""The training loop, top to bottom: prepare, train epoch by epoch, keep the best, choose the object parameters, record."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cellfleet.bundle.spec import Head
from cellfleet.config.model import TrainingSection
from cellfleet.data import DataSetVersion
from cellfleet.lineage.state import ProjectState
from cellfleet.ports import Clock, SystemClock
from cellfleet.train.augment import Augmentation
from cellfleet.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from cellfleet.train.grid import choose_grid
from cellfleet.train.networks import DEFAULT_HEADS
from cellfleet.train.preflight import check_crop, check_settings, run_identity
from cellfleet.train.record import TrainingRun, write_history, write_run
from cellfleet.train.samples import Crops, Sample, load_samples
from cellfleet.train.state import State, load_network, save_best
from cellfleet.train.tracking import Tracker
from cellfleet.train.validation import choose_params, maps_of, score_of, validate

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"


@dataclass(frozen=True)
class EpochReport:
    """What is shown while training.

    Attributes:
        stage: ``loading``, ``training`` or ``choosing``.
        done, total: steps of that stage (images, epochs, parameter sets).
        loss: of the epoch.
        validation_ap50: of the latest validation, or None.
        seconds_left: estimate for the stage, or None.
        note: what else there is to say.
    """

    stage: str
    done: int
    total: int
    loss: float | None = None
    validation_ap50: float | None = None
    seconds_left: float | None = None
    note: str = ""


ReportFn = Callable[[EpochReport], None]


def no_report(report: EpochReport) -> None:
    """Show nothing."""
    del report


def train(
    data: DataSetVersion,
    section: TrainingSection,
    run_dir: Path,
    *,
    project: ProjectState,
    environment: str,
    heads: tuple[Head, ...] = DEFAULT_HEADS,
    resume: bool = False,
    report: ReportFn = no_report,
    clock: Clock | None = None,
) -> TrainingRun:
    """Train a network.

    The same data, settings and seed on the same machine give the same weights, whether or not training was interrupted
    and resumed in between; a budget in minutes is the exception.

    Args:
        data: the data set version; its train and validation splits are used, the test split is not touched.
        section: settings.
        run_dir: folder of the run.
        project, environment: for the training record.
        heads: outputs of the network; one foreground and one distance head at least.
        resume: go on from the last checkpoint.
        report: called after every step.

    Returns:
        The finished run; ``run_dir`` then holds ``best.pt``, ``training.json``, ``history.csv`` and ``run.json``.

    Raises:
        ConfigError: settings that cannot work (before the first batch).
        TrainError: data that cannot be trained with (before the first batch), or a loss that is not a number.
        StorageError: the disk refuses.
    """
    clock = clock or SystemClock()
    check_settings(data, section, run_dir, heads, resume)
    _deterministic(section)
    channels = data.split("train")[0].channels
    identity = run_identity(data, section, heads)
    grid = choose_grid(data, section)
    entries = {s: data.split(s) for s in ("train", "validation")}
    check_crop(entries["train"], grid, section)
    progress, stored = load_checkpoint(run_dir / CHECKPOINT, identity) if resume else (Progress(), {})
    tracker = Tracker(section.tracking_uri, run_dir.parent, section.experiment)

    def loading(done: int, total: int, note: str) -> None:
        report(EpochReport("loading", done, total, note=note))

    samples = load_samples(data, entries["train"] + entries["validation"], channels, grid, heads, loading)
    training, validation = samples[: len(entries["train"])], samples[len(entries["train"]) :]

    state = State.new(section, channels, heads, steps_per_epoch=_steps(section, len(training)))
    if resume:
        state.load(stored)
    tags = {"data_set": data.digest, "project_commit": project.describe(), "environment": environment}
    progress.tracking_run = tracker.start(run_dir.name, section.model_dump(), tags, progress.tracking_run)
    crops = Crops(training, section.crop_px, section.crops_per_image, section.seed, Augmentation(section.augmentation))
    try:
        _epochs(state, crops, validation, section, progress, run_dir, identity, tracker, report, clock)
        best = load_network(run_dir / BEST, len(channels), section, heads)
        maps = maps_of(best, validation, data, entries["validation"])
        params, numbers = choose_params(maps, lambda d, t, n: report(EpochReport("choosing", d, t, note=n)))
        run = TrainingRun.finished(
            data,
            section,
            heads,
            channels,
            grid,
            progress,
            params,
            numbers,
            project,
            environment,
            torch.get_num_threads(),
        )
        write_run(run_dir, run, progress, clock)
    except BaseException as e:
        tracker.end("KILLED" if isinstance(e, KeyboardInterrupt) else "FAILED")
        raise
    tracker.log(progress.epoch, {"chosen_ap50": numbers.ap50, "chosen_map": numbers.map})
    tracker.end("FINISHED")
    return run


def _epochs(
    state: State,
    crops: Crops,
    validation: list[Sample],
    section: TrainingSection,
    progress: Progress,
    run_dir: Path,
    identity: str,
    tracker: Tracker,
    report: ReportFn,
    clock: Clock,
) -> None:
    begun, before, first = clock.monotonic_s(), progress.elapsed_s, progress.epoch
    latest = max((r for r in progress.history if "validation_ap50" in r), key=lambda r: r["epoch"], default=None)
    while progress.epoch < section.epochs and not is_over(progress, section):
        epoch = progress.epoch + 1
        row: dict[str, float] = {"epoch": epoch, "loss": state.train_epoch(crops, epoch, section.batch_size)}
        row["learning_rate"] = state.learning_rate
        progress.elapsed_s = before + clock.monotonic_s() - begun
        late = _is_late(progress, section)
        if epoch % section.validate_every == 0 or epoch == section.epochs or late:
            row |= _validate(state, validation)
            latest = row
            if row["score"] > progress.best_score:
                progress.best_epoch, progress.best_score = epoch, row["score"]
                save_best(run_dir / BEST, state)
        progress.epoch = epoch
        progress.history.append(row)
        save_checkpoint(run_dir / CHECKPOINT, identity, progress, state.tensors())
        write_history(run_dir, progress)
        problem = tracker.log(epoch, {k: v for k, v in row.items() if k != "epoch"})
        pace = (clock.monotonic_s() - begun) / (epoch - first)
        ap50 = latest["validation_ap50"] if latest else None
        left = pace * (section.epochs - epoch)
        report(EpochReport("training", epoch, section.epochs, row["loss"], ap50, left, problem))


def _validate(state: State, validation: list[Sample]) -> dict[str, float]:
    numbers = validate(state.ema, validation)
    return {"validation_ap50": numbers.ap50, "validation_map": numbers.map, "score": score_of(numbers)}


def _is_late(progress: Progress, section: TrainingSection) -> bool:
    return section.minutes is not None and progress.elapsed_s >= 60 * section.minutes


def is_over(progress: Progress, section: TrainingSection) -> bool:
    """The minutes or the patience are used up; there is always a best epoch then."""
    if not progress.best_epoch:
        return False
    if _is_late(progress, section):
        return True
    if not section.patience:
        return False
    later = [r for r in progress.history if "score" in r and r["epoch"] > progress.best_epoch]
    return len(later) >= section.patience


def _steps(section: TrainingSection, images: int) -> int:
    return -(-images * section.crops_per_image // section.batch_size)


def _deterministic(section: TrainingSection) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(section.threads or cores)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(section.seed)
