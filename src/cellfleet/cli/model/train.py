"""``cellfleet train``: train a network on a data set version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cellfleet.cli.common import JsonOption, ProjectOption, SetOption, err_console, print_json, project_of, say
from cellfleet.errors import TrainError

DEFAULT_RUN = "latest"
RunOption = Annotated[str, typer.Option("--run", help="Name of the run below training.runs.")]


def train(
    data: Annotated[Path | None, typer.Argument(metavar="[DATASET.json]", help="Default: data.manifest.")] = None,
    run: RunOption = DEFAULT_RUN,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint.")] = False,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network; print epoch, loss, validation AP and remaining time."""
    from cellfleet.data import DataSetVersion
    from cellfleet.lineage import RecordStore, environment_digest, project_state

    run_training = _import_training()
    p = project_of(project, settings)
    version = DataSetVersion.load(data or p.path(p.settings.data.manifest))
    run_dir = p.path(p.settings.training.runs) / run
    try:
        with training_display(quiet=as_json) as report:
            done = run_training(
                version,
                p.settings.training,
                run_dir,
                project=project_state(p.root),
                environment=environment_digest(),
                resume=resume,
                report=report,
            )
    except KeyboardInterrupt:
        if (run_dir / "checkpoint.pt").exists():
            raise KeyboardInterrupt("completed epochs are kept; resume with --resume") from None
        raise
    RecordStore(p.path(p.settings.lineage.records)).put("training", done.model_dump(mode="json"))
    facts = {
        "run": str(run_dir),
        "training": done.digest,
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "validation_ap50": done.validation_ap50,
        "validation_map": done.validation_map,
        "objects": done.objects.model_dump(),
        "target_pixel_size_um": done.target_pixel_size_um,
    }
    if as_json:
        print_json(facts)
        return
    grid = f"{done.target_pixel_size_um:g} um" if done.target_pixel_size_um else "native pixels"
    say(f"trained {done.epochs} epochs on a grid of {grid}; the best was epoch {done.best_epoch}")
    say(f"validation AP@0.5 {done.validation_ap50:.3f}, mean AP {done.validation_map:.3f}")
    say(f"training run {done.digest}")
    say(f"written to {run_dir}")


def _import_training() -> Any:
    try:
        from cellfleet.train import train as run_training
    except ImportError as e:
        raise TrainError(
            f"training needs libraries that are not installed ({e.name})", hint="pip install 'cellfleet[train]'"
        ) from e
    return run_training


@contextmanager
def training_display(*, quiet: bool = False) -> Iterator[Any]:
    """Yield a report function: a live bar on a terminal, a line per validation in a log, nothing if quiet."""
    console = err_console()
    if quiet:
        yield lambda _report: None
        return
    if not console.is_terminal:
        yield _PlainLines().show
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, Any] = {}

        def update(report: Any) -> None:
            if report.stage not in tasks:
                tasks[report.stage] = bar.add_task(_TITLES[report.stage], total=report.total, note="")
            bar.update(tasks[report.stage], completed=report.done, total=report.total, note=escape(_note(report)))

        yield update


_TITLES = {"loading": "loading images", "training": "training epochs", "choosing": "choosing object parameters"}


def _note(report: Any) -> str:
    parts = [report.note] if report.note else []
    if report.loss is not None:
        parts.append(f"loss {report.loss:.3f}")
    if report.validation_ap50 is not None:
        parts.append(f"validation AP50 {report.validation_ap50:.3f}")
    if report.seconds_left is not None:
        parts.append(f"{int(report.seconds_left) // 60}:{int(report.seconds_left) % 60:02d} left")
    return ", ".join(parts)


class _PlainLines:
    """Prints a line when a stage ends, after each validation, and every tenth epoch."""

    def __init__(self) -> None:
        self._ap50: float | None = None

    def show(self, report: Any) -> None:
        changed = report.validation_ap50 != self._ap50 or report.done == report.total
        self._ap50 = report.validation_ap50
        if changed or (report.stage == "training" and report.done % 10 == 0):
            err_console().print(f"{_TITLES[report.stage]} {report.done}/{report.total}: {_note(report)}", markup=False)
