"""Shared by all commands: options, the project, progress, output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.config import Project, load_project
from cellfleet.ports import ProgressFn

ProjectOption = Annotated[
    Path,
    typer.Option(
        "--project", "-p", help="Project folder or file (default: cellfleet.toml here or above).", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting; repeatable.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the facts as JSON on standard output, and nothing else.")
]

LOG_EVERY_S = 5.0


def project_of(project: Path, settings: Sequence[str] | None) -> Project:
    """Load the project of a command.

    Args:
        project: folder or file.
        settings: ``section.key=value`` of the command line.

    Raises:
        ConfigError: an invalid project file, variable or flag.
    """
    return load_project(project, overrides=settings or ())


def out_console() -> Console:
    """Standard output, for results; plain and unwrapped when it is not a terminal."""
    return _console(stderr=False)


def err_console() -> Console:
    """Standard error, for progress and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, highlight=False, soft_wrap=not stream.isatty(), width=None if stream.isatty() else 160
    )


def say(text: str) -> None:
    """Print one plain line on standard output (no markup is interpreted)."""
    out_console().print(text, markup=False)


def print_json(facts: Any) -> None:
    """Print facts as indented JSON on standard output."""
    sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table: the first column is left-aligned, columns of numbers are right-aligned.

    Args:
        title: printed above the table.
        columns: column names.
        rows: cells; None is printed as ``-``.
    """
    table = Table(
        title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2)
    )
    for i, name in enumerate(columns):
        numbers = i > 0 and all(isinstance(r[i], int | float) or r[i] in ("", "-") for r in rows)
        table.add_column(escape(name), justify="right" if numbers else "left", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(escape(_cell(v)) for v in row))
    out_console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def progress_bar(title: str, *, quiet: bool = False) -> Iterator[ProgressFn]:
    """Yield a progress function: a live bar on a terminal, a line every few seconds in a log.

    Args:
        title: title of the bar.
        quiet: print nothing.
    """
    if quiet:
        yield lambda _done, _total, _note: None
        return
    console = err_console()
    if not console.is_terminal:
        yield _plain_progress(title, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(escape(title), total=None, note="")

        def update(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield update


def _plain_progress(title: str, console: Console) -> ProgressFn:
    last = [0.0]

    def update(done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if done >= total or now - last[0] >= LOG_EVERY_S:
            last[0] = now
            console.print(f"{title}: {done}/{total} {note}".rstrip(), markup=False)

    return update


def stop(code: ExitCode) -> NoReturn:
    """End the command with an exit code that is not an error (findings, a failed gate)."""
    raise typer.Exit(int(code))
