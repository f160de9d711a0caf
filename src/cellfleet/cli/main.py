"""The program ``cellfleet``: registers the commands and turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cellfleet._version import __version__
from cellfleet.cli.common import err_console
from cellfleet.cli.exit_codes import ExitCode, code_for
from cellfleet.errors import CellfleetError

_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}

# command -> (module, attribute, help); a Typer object is a group of commands. Modules are imported on use,
# so that the command line starts fast on a device without the training extras.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("cellfleet.cli.init", "init", "Make a project: a folder with a commented cellfleet.toml."),
    "data": ("cellfleet.cli.model.data", "app", "Validate, freeze, show, compare and synthesise data sets."),
    "train": ("cellfleet.cli.model.train", "train", "Train a network on a data set version."),
    "export": ("cellfleet.cli.model.export", "export", "Export a trained network to ONNX and prove that it is equal."),
    "optimize": (
        "cellfleet.cli.model.optimize",
        "optimize",
        "Make smaller and faster variants; keep those that pass the gate.",
    ),
    "bundle": ("cellfleet.cli.model.bundle", "app", "Build, show and verify bundles."),
    "evaluate": (
        "cellfleet.cli.model.evaluate",
        "evaluate",
        "Measure a model on held-out data; write report and decision record.",
    ),
    "segment": ("cellfleet.cli.model.segment", "segment", "Segment images and videos with a bundle."),
    "trust": (
        "cellfleet.cli.fleet.trust",
        "app",
        "Manage keys and update repositories: init, status, rotate, allow, export.",
    ),
    "release": ("cellfleet.cli.fleet.release", "app", "Publish bundles as signed releases; show and withdraw them."),
    "deploy": (
        "cellfleet.cli.fleet.deploy",
        "app",
        "Deploy a release to a device group in phases; watch, halt, resume.",
    ),
    "lineage": ("cellfleet.cli.model.lineage", "lineage", "Show the lineage of a mask, a table row or a bundle."),
    "device": (
        "cellfleet.cli.instrument.device",
        "app",
        "Run an instrument: provision, run, status, doctor, install, hold.",
    ),
    "fleet": ("cellfleet.cli.fleet.server", "app", "Run the fleet server; manage users, devices, groups and audit."),
    "demo": (
        "cellfleet.cli.demo",
        "demo",
        "Run the complete workflow, from annotated images to three instruments and back.",
    ),
}


def build_app(wanted: str) -> typer.Typer:
    """Build the program: the command ``wanted`` complete, all others with name and help text only."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, **_PLAIN)
    app.callback(invoke_without_command=True)(_root)
    for name, (module, attribute, text) in COMMANDS.items():
        target = getattr(importlib.import_module(module), attribute) if name == wanted else _not_loaded
        if isinstance(target, typer.Typer):
            _guard_all(target)
            app.add_typer(target, name=name, help=text, no_args_is_help=True)
        else:
            app.command(name=name, help=text)(_guarded(target))
    return app


def _guard_all(group: typer.Typer) -> None:
    for info in group.registered_commands:
        assert info.callback is not None
        info.callback = _guarded(info.callback)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _guard_all(inner.typer_instance)


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """From annotated images to a bundle that segments live cells on a fleet of instruments, and back."""
    if version:
        sys.stdout.write(f"cellfleet {__version__}\n")
        raise typer.Exit


def _not_loaded() -> None:
    """Placeholder for a command whose module is not loaded."""


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors into a message on standard error and an exit code."""

    @functools.wraps(command)
    def guard(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CellfleetError as e:
            _print_error(e.message, e.hint)
            raise typer.Exit(int(code_for(e))) from None
        except BrokenPipeError:  # the reader of the output has ended, such as `| head`
            _drop_output()
            raise typer.Exit(int(ExitCode.OK)) from None
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT) or e.filename is not None:
                raise
            _drop_output()
            _print_error(f"cannot write the output: {e.strerror}", "free some space, or write the output elsewhere")
            raise typer.Exit(int(ExitCode.STORAGE)) from None
        except KeyboardInterrupt as e:
            _print_error("interrupted", str(e) or "no partial file is left; run the same command again")
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from None

    return guard


def _drop_output() -> None:
    """Discard all further standard output, including buffered text that is flushed at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code; errors become messages on standard error.

    A defect of cellfleet prints its traceback.
    """
    try:
        build_app(argv[0] if argv else "")(args=argv, prog_name="cellfleet")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(ExitCode.OK if e.code is None else ExitCode.INTERNAL)
    except KeyboardInterrupt:  # before or after the command itself
        return int(ExitCode.INTERRUPTED)
    except MemoryError:
        _print_error("not enough memory", "use smaller images or tiles (--set segment.tile_px=512)")
        return int(ExitCode.INTERNAL)
    except Exception:
        traceback.print_exc()
        _print_error("this is a defect of cellfleet", "report it with the lines above and your command")
        return int(ExitCode.INTERNAL)
    return int(ExitCode.OK)


def _print_error(message: str, hint: str) -> None:
    console = err_console()
    console.print("[bold red]error:[/]", end=" ")
    console.print(message, markup=False)
    if hint:
        console.print(f"  hint: {hint}", markup=False)


def main() -> None:
    """Entry point of the program."""
    sys.exit(run(sys.argv[1:]))
