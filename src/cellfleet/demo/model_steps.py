"""The first half of the demo: from annotated images to a bundle that segments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellfleet.cli.common import out_console, print_table, say
from cellfleet.config import PROJECT_FILE
from cellfleet.demo.command_runner import CommandRunner
from cellfleet.ports import write_atomic

STEPS = 10
RUN = "demo"
CROPS = {"synthetic": 2500, "own": 13000}
"""Training budget in crops; it gives the number of epochs."""
SEGMENTED = 24
"""Maximum number of held-out images to segment."""
NAME, VERSION = "demo-cells", "0.1.0"
NUMBERS = ("ap50", "map", "dice", "count_error", "confluence_error")


@dataclass(frozen=True)
class ModelOptions:
    """Input of the first half.

    Attributes:
        root: project folder, empty.
        data: the user's own data set; None: synthetic images.
        seed: seed of scenes and training.
        settings: ``section.key=value`` for all commands.
    """

    root: Path
    data: Path | None
    seed: int
    settings: tuple[str, ...]


def run_model_steps(runner: CommandRunner, options: ModelOptions) -> dict[str, Any]:
    """Run the commands from data to bundle.

    Args:
        runner: prints steps and runs commands.
        options: input of the first half.

    Returns:
        The numbers, as ``--json`` writes them.

    Raises:
        CommandFailed: a command failed.
    """
    root, data, seed, settings = options.root, options.data, options.seed, options.settings
    here = ("-p", str(root), *(part for text in settings for part in ("--set", text)))
    source = _data(runner, root, data, seed)
    write_atomic(root / PROJECT_FILE, _project(source, seed, epochs=None))
    runner.step("Freeze the data set", "Checks images and masks, assigns the splits, and gives the data set a digest.")
    runner.run("data", "validate", *here)
    runner.run("data", "freeze", *here)
    write_atomic(
        root / PROJECT_FILE,
        _project(source, seed, epochs=epochs_for(root, settings, CROPS["synthetic" if data is None else "own"])),
    )
    runner.step("Train", "A U-Net that predicts foreground and distances; the budget is a number of epochs.")
    runner.run("train", "--run", RUN, *here)
    runner.step("Export", "To ONNX, with proof that it equals the network in PyTorch.")
    runner.run("export", "--run", RUN, *here)
    runner.step(
        "Optimise", "Make an INT8 variant; keep it only if its loss on the validation split is within the limit."
    )
    runner.run("optimize", "--run", RUN, *here)
    runner.step("Build the bundle", "One archive with description, digests and golden frames for the self-test.")
    runner.run("bundle", "build", "--run", RUN, *here)
    bundle = next((root / "bundles").glob("*.bundle.zip"))
    runner.run("bundle", "verify", str(bundle))
    runner.step("Evaluate", "On held-out images: numbers, gate, report, signed decision record.")
    runner.run("evaluate", str(bundle), *here, may_find=True)
    runner.step("Segment", "Held-out images, with only the bundle, in a process that cannot import torch.")
    held_out = _held_out(root)
    runner.run_without_torch("segment", str(bundle), *held_out, "--out", str(root / "segmented"), *_read_options(root))
    runner.step("Lineage of a mask", "From one mask back to its data and commit.")
    mask = min((root / "segmented").glob("*/masks/*.tif"))
    runner.run("lineage", str(mask), *here, "--bundle", str(bundle))
    runner.step("The numbers", "Results of the evaluation; size and speed of the variants on this machine.")
    runner.close()
    return _facts(root, bundle)


def _data(runner: CommandRunner, root: Path, data: Path | None, seed: int) -> Path:
    if data is None:
        text = "Synthetic phase-contrast time-lapses of two kinds of cells that grow, move, divide and die."
        runner.step("Make a data set", text)
        runner.run("data", "synth", str(root / "data"), "--seed", str(seed))
        return root / "data"
    runner.step("Use a data set", f"{data}: no files are copied.")
    return data.absolute()


def _project(source: Path, seed: int, *, epochs: int | None) -> bytes:
    from cellfleet.cli.init import INSTRUMENT, MODELLING, SERVER, project_text
    from cellfleet.demo.fleet_steps import demo_settings

    values: dict[str, Any] = {
        "model.name": NAME,
        "model.version": VERSION,
        "model.description": "A demonstration model that segments cells in phase-contrast images",
        "data.source": str(source),
        "training.seed": seed,
        "training.validate_every": 10,
        "evaluation.approver": "the demo",
        **demo_settings.BUNDLE,
        **demo_settings.SERVER,
        **demo_settings.INSTRUMENT,
    }
    if epochs is not None:
        values["training.epochs"] = epochs
    return project_text(values, dict.fromkeys((*MODELLING, *SERVER, *INSTRUMENT))).encode()


def epochs_for(root: Path, settings: Sequence[str], crops: int) -> int:
    """Compute the number of epochs that use about ``crops`` crops.

    Args:
        root: project folder, with a frozen data set.
        settings: ``section.key=value`` of the demo.
        crops: crops in total.
    """
    from cellfleet.config import load_project
    from cellfleet.data import DataSetVersion

    p = load_project(root, overrides=settings)
    images = len(DataSetVersion.load(p.path(p.settings.data.manifest)).split("train"))
    return max(1, round(crops / (images * p.settings.training.crops_per_image)))


def _held_out(root: Path) -> list[str]:
    """Files of the images of the test split."""
    from cellfleet.data import DataSetVersion
    from cellfleet.data.locate import to_path

    version = DataSetVersion.load(root / "dataset.json")
    return [str(to_path(e.image.uri, version.root)) for e in version.split("test")[:SEGMENTED]]


def _read_options(root: Path) -> list[str]:
    """Channels and pixel size for files that do not name them."""
    from cellfleet.data import DataSetVersion

    entries = DataSetVersion.load(root / "dataset.json").split("test")
    options = ["--channels", ",".join(entries[0].channels)]
    sizes = {e.pixel_size_um for e in entries}
    one = sizes.pop()
    return [*options, "--pixel-size-um", f"{one:g}"] if not sizes and one is not None else options


def _facts(root: Path, bundle: Path) -> dict[str, Any]:
    """The numbers of the model, from the files that the commands wrote."""
    from cellfleet.canonical import sha256_file

    evaluation = next((root / "evaluations").glob("*/metrics.json")).parent
    metrics = json.loads((evaluation / "metrics.json").read_bytes())
    optimization = json.loads((root / "runs" / RUN / "model" / "optimization.json").read_bytes())
    wanted = ("bytes", "ms_per_frame", "ap50", "kept", "reason")
    return {
        **{k: metrics["numbers"][k] for k in NUMBERS},
        "strata": {name: {k: n[k] for k in NUMBERS} for name, n in metrics["strata"].items()},
        "variants": {v["name"]: {k: v[k] for k in wanted} for v in optimization["variants"]},
        "data_set": metrics["data_set"],
        "bundle": {"path": str(bundle), "sha256": sha256_file(bundle), "name": NAME, "version": VERSION},
        "frames": metrics["numbers"]["frames"],
        "verdict": metrics["verdict"],
        "report": str(evaluation / "report.html"),
        "segmented": str(root / "segmented"),
    }


def print_numbers(facts: dict[str, Any]) -> None:
    """Print the numbers of ``run_model_steps`` as tables."""
    out_console().print()
    rows = [["all", *(facts[k] for k in NUMBERS)]]
    rows += [[name, *(n[k] for k in NUMBERS)] for name, n in facts["strata"].items()]
    columns = ["stratum", "AP@0.5", "mean AP", "Dice", "count error", "confluence error (points)"]
    print_table(f"{facts['frames']} held-out images", columns, rows)
    print_table(
        "variants (AP@0.5 on the validation split, time on this machine)",
        ["variant", "MB", "ms per frame", "AP@0.5", "kept", "reason"],
        [
            [name, v["bytes"] / 1e6, v["ms_per_frame"], v["ap50"], "yes" if v["kept"] else "no", v["reason"]]
            for name, v in facts["variants"].items()
        ],
    )
    say(f"bundle    {facts['bundle']['path']}")
    say(f"          {facts['bundle']['sha256']}")
    say(f"report    {facts['report']}")
    say(f"masks     {facts['segmented']}")
