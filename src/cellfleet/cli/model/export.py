"""``cellfleet export``: from a training run to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellfleet.cli.common import (
    JsonOption,
    ProjectOption,
    SetOption,
    err_console,
    print_json,
    print_table,
    project_of,
    say,
)
from cellfleet.cli.model.train import DEFAULT_RUN, RunOption
from cellfleet.errors import TrainError


def export(
    run: RunOption = DEFAULT_RUN,
    data: Annotated[Path | None, typer.Option("--data", help="Manifest (default: data.manifest).")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Model folder (default: model/ of the run).")] = None,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a trained network to ONNX and prove that it equals PyTorch."""
    from cellfleet.data import DataSetVersion

    try:
        from cellfleet.train.exporting.export import export as run_export
    except ImportError as e:
        raise TrainError(
            f"export needs libraries that are not installed ({e.name})", hint="pip install 'cellfleet[train]'"
        ) from e
    p = project_of(project, settings)
    version = DataSetVersion.load(data or p.path(p.settings.data.manifest))
    run_dir = p.path(p.settings.training.runs) / run
    console = err_console()

    def note(text: str) -> None:
        if not as_json:
            console.print(text, markup=False)

    done = run_export(run_dir, out or run_dir / "model", p.settings.model, version, note)
    worst = max(max(x.contract, x.portable) for x in done.parity)
    files = {v.file: done.folder.file(v.file).stat().st_size for v in done.folder.variants}
    if as_json:
        print_json({"folder": str(done.folder.path), "greatest_difference": worst, "files": files})
        return
    rows = [[x.case, f"{x.contract:.1e}", f"{x.portable:.1e}"] for x in done.parity]
    print_table("maximum difference of a probability from PyTorch", ["case", "contract", "portable"], rows)
    say(f"ONNX equals PyTorch to within {worst:.1e}")
    for name, size in files.items():
        say(f"{name}: {size / 1e6:.2f} MB")
    say(f"written to {done.folder.path}")
