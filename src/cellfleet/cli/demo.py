"""``cellfleet demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellfleet.cli.common import err_console, say, stop
from cellfleet.cli.exit_codes import ExitCode


def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Your own data set: a folder with images/ and masks/, or a COCO JSON file."),
    ] = None,
    workdir: Annotated[
        Path, typer.Option("--workdir", help="Project folder of the demo; its content is removed first.")
    ] = Path("cellfleet-demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of scenes and training.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers to this file.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting of the project; repeatable."),
    ] = None,
    only_model: Annotated[
        bool, typer.Option("--only-model", help="Stop after the bundle; do not start the fleet.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the server and the instruments running until Ctrl-C.")
    ] = False,
) -> None:
    """Run the complete workflow: from images to a bundle, and from the bundle to three instruments and back."""
    from cellfleet.demo.command_runner import CommandFailed
    from cellfleet.demo.journey import DemoOptions, run_demo

    options = DemoOptions(workdir, data, seed, json_file, tuple(settings or ()), only_model, keep)
    try:
        findings = run_demo(options)
    except CommandFailed as e:
        err_console().print(f"the demo stops here; its files so far are in {options.root}", markup=False)
        raise typer.Exit(e.code) from None
    for command in findings:
        say(f"NOT passed: {command}")
    if findings:
        stop(ExitCode.FINDINGS)
