"""``cellfleet optimize``: make smaller and faster variants of a model; keep those that pass in the model folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellfleet.cli.common import (
    JsonOption,
    ProjectOption,
    SetOption,
    print_json,
    print_table,
    progress_bar,
    project_of,
    say,
)
from cellfleet.cli.model.train import DEFAULT_RUN
from cellfleet.config import Project

if TYPE_CHECKING:
    from cellfleet.optimize import MeasuredVariant


def optimize(
    data: Annotated[Path | None, typer.Argument(metavar="[DATASET.json]", help="Default: data.manifest.")] = None,
    run: Annotated[
        str, typer.Option("--run", help="Name of the run below training.runs, or a model folder.")
    ] = DEFAULT_RUN,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make variants, measure them on the validation frames, and keep those that pass."""
    from cellfleet.bundle import ModelFolder
    from cellfleet.data import DataSetVersion
    from cellfleet.lineage import RecordStore
    from cellfleet.optimize import load_record
    from cellfleet.optimize import optimize as run_optimize

    p = project_of(project, settings)
    version = DataSetVersion.load(data or p.path(p.settings.data.manifest))
    folder = ModelFolder.load(_model_folder(p, run))
    with progress_bar("optimising", quiet=as_json) as progress:
        results = run_optimize(folder, version, p.settings.optimize, progress)
    digest = RecordStore(p.path(p.settings.lineage.records)).put("optimization", load_record(folder))
    if as_json:
        facts = {r.name: asdict(r) for r in results}
        print_json({"folder": str(folder.path), "optimization": digest, "variants": facts})
        return
    show_variants(results)
    say(f"kept {sum(r.kept for r in results)} of {len(results)} variants; each machine uses its fastest variant")
    say(f"written to {folder.path}")


def show_variants(results: list[MeasuredVariant]) -> None:
    """Print the table of variants, with times on this machine."""
    rows = [
        [
            r.name,
            "-" if r.bytes is None else f"{r.bytes / 1e6:.2f}",
            "-" if r.ms_per_frame is None else f"{r.ms_per_frame:.0f}",
            "-" if r.ap50 is None else f"{r.ap50:.3f}",
            "-" if r.agreement is None else f"{r.agreement:.3f}",
            "kept" if r.kept else "dropped",
            r.reason,
        ]
        for r in results
    ]
    columns = ["variant", "MB", "ms/frame here", "AP@0.5", "agreement", "", "reason"]
    print_table("variants on the validation frames", columns, rows)


def _model_folder(project: Project, run: str) -> Path:
    """The model folder of the run with that name, else the path itself."""
    named = project.path(project.settings.training.runs) / run / "model"
    path = Path(run).expanduser()
    return path.absolute() if not named.is_dir() and path.is_dir() else named
