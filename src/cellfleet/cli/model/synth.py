"""``cellfleet data synth``: make a data set of synthetic time-lapses with exact ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellfleet.cli.common import JsonOption, print_json, progress_bar, say


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write: images/, masks/, index.csv, cells.csv, tracks.csv.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same data set.")] = 0,
    wells: Annotated[int, typer.Option("--wells", min=1, max=99, help="Wells of each kind of cell.")] = 6,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of each well.")] = 3,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Frame intervals between two frames.")] = 24,
    size: Annotated[int, typer.Option("--size", min=64, max=8192, help="Height and width of a frame, pixels.")] = 448,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[KIND.]NAME=VALUE",
            help="Change the scene: defocus_um=8, halo_strength=0.3, round.speed_um_h=20 ...; repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a data set of synthetic phase-contrast time-lapses with exact ground truth."""
    from cellfleet.data.synthetic import SceneParams, write_data_set

    params = SceneParams(height_px=size, width_px=size).with_settings(settings or ())
    with progress_bar("simulating", quiet=as_json) as progress:
        write_data_set(out, params, seed, progress, sequences=wells, frames=frames, stride=stride)
    kinds = [k.name for k in params.kinds]
    images = len(kinds) * wells * frames
    if as_json:
        facts = {"out": str(out.absolute()), "seed": seed, "images": images, "wells": len(kinds) * wells}
        print_json({**facts, "kinds": kinds, "params": params.model_dump(mode="json")})
        return
    say(f"{images} images with masks: {wells} wells of each kind of cell ({', '.join(kinds)}), {frames} frames each")
    say(f"written to {out.absolute()}")
