"""``cellfleet demo``: the whole story in one project folder, told with the commands that a user would type.

The first half, from annotated images to a bundle that segments, is here; ``fleet_story`` tells the second.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from cellfleet.cli.common import err_console, out_console, print_table, say, stop
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.config import PROJECT_FILE
from cellfleet.demo import fleet_story
from cellfleet.demo.story import Story, StoryEnds
from cellfleet.errors import ConfigError
from cellfleet.ports import make_dir, write_atomic

MARK = ".cellfleet-demo"
CHAPTERS = 10
RUN = "demo"
CROPS = {"synthetic": 2500, "own": 13000}
"""Training budget: crops seen in all, from which the number of epochs follows."""
SEGMENTED = 24
"""Held-out images that are segmented at most."""
NAME, VERSION = "demo-cells", "0.1.0"
PLACES = (
    "data.source",
    "data.manifest",
    "training.runs",
    "bundle.out",
    "evaluation.out",
    "lineage.records",
    "lineage.key",
    "fleet.store",
    "fleet.trust",
    "device.name",
    "device.server",
    "camera.kind",
    "camera.source",
)
"""Settings that say where things lie, and who is who."""
NUMBERS = ("ap50", "map", "dice", "count_error", "confluence_error")


def demo(
    data: Annotated[
        Path | None, typer.Option("--data", help="Your own data set: folder with images/ and masks/, or COCO JSON.")
    ] = None,
    workdir: Annotated[Path, typer.Option("--workdir", help="Project folder of the demo; emptied first.")] = Path(
        "cellfleet-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of scenes and training.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers there.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Another setting of the project.")
    ] = None,
    only_model: Annotated[bool, typer.Option("--only-model", help="Stop after the bundle: no fleet.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Let server and instruments run on until Ctrl-C.")] = False,
) -> None:
    """Run the whole story: from images to a bundle, and from the bundle to three instruments and back."""
    _check_flags(data, workdir, json_file, settings or [])
    if keep and only_model:
        raise ConfigError("--keep lets the fleet run on; with --only-model there is none", hint="leave one of them out")
    root = _clean_folder(workdir)
    if not only_model:
        fleet_story.check_room(root)
    story = Story(chapters=CHAPTERS + (0 if only_model else fleet_story.CHAPTERS))
    told = _Told(story, root, json_file)
    try:
        with _ends_on_signals():
            told.facts = _tell(story, root, data, seed, settings or [])
            _print_numbers(told.facts)
            if story.findings and not only_model:
                say("the gate failed, so this bundle is not released: the story of the fleet is not told")
            if not only_model and not story.findings:
                bundle = Path(told.facts["bundle"]["path"])
                fleet = fleet_story.Plot(root, bundle, RUN, seed, data is not None, tuple(settings or ()))
                fleet_story.tell(story, fleet, told.end, _stay if keep else None)
            else:
                told.end({})
    except StoryEnds as e:
        err_console().print(f"the story ends here; what was made so far lies in {root}", markup=False)
        raise typer.Exit(e.code) from None
    for command in story.findings:
        say(f"NOT passed: {command}")
    if story.findings:
        stop(ExitCode.FINDINGS)


def _check_flags(data: Path | None, workdir: Path, json_file: Path | None, settings: Sequence[str]) -> None:
    """Refuse what cannot be meant, before anything is done."""
    if data is not None and not data.exists():
        raise ConfigError(f"--data {data}: no such folder or file", hint="name a folder with images/ and masks/")
    if data is not None and data.resolve().is_relative_to(workdir.resolve()):
        raise ConfigError(
            f"--data {data} lies in the folder {workdir}, which the demo empties first",
            hint="name another folder with --workdir",
        )
    if json_file is not None and json_file.is_dir():
        raise ConfigError(f"--json {json_file} is a folder", hint="name a file, for example --json numbers.json")
    for text in settings:
        if text.partition("=")[0].strip() in PLACES:
            raise ConfigError(
                f"--set {text}: the demo has places of its own", hint="leave it out; --workdir moves them all"
            )


class _Told:
    """What the story gave: kept for --json, and said at the end."""

    def __init__(self, story: Story, root: Path, json_file: Path | None) -> None:
        self._story, self._root, self._json_file, self._begun = story, root, json_file, time.monotonic()
        self.facts: dict[str, Any] = {}

    def end(self, more: Mapping[str, Any]) -> None:
        """The story is told; ``more`` are the numbers of its second half."""
        self.facts |= more
        self.facts["seconds"] = {**self._story.seconds, "all": round(time.monotonic() - self._begun, 1)}
        if self._json_file is not None:
            make_dir(self._json_file.absolute().parent)
            text = json.dumps(self.facts, indent=2, ensure_ascii=False, allow_nan=False)
            write_atomic(self._json_file, f"{text}\n".encode())
        say(f"project   {self._root}")
        say(f"the whole story took {self.facts['seconds']['all']:.0f} s")


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[None]:
    """A wish to end (SIGTERM, a terminal that is closed) is taken as Ctrl-C, so that what was started is ended, too."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heard = [number for number in numbers if before[number] == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        heard = []
    for number in heard:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _stay(where: str) -> None:
    """Wait for Ctrl-C while server and instruments run on."""
    say(f"the pages stay up at {where}; Ctrl-C ends everything")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _tell(story: Story, root: Path, data: Path | None, seed: int, settings: list[str]) -> dict[str, Any]:
    here = ("-p", str(root), *(part for text in settings for part in ("--set", text)))
    source = _data(story, root, data, seed)
    write_atomic(root / PROJECT_FILE, _project(source, seed, epochs=None))
    story.chapter("Freeze the data set", "Looks for mistakes, draws the splits, and gives the data set a digest.")
    story.run("data", "validate", *here)
    story.run("data", "freeze", *here)
    write_atomic(
        root / PROJECT_FILE,
        _project(source, seed, epochs=epochs_for(root, settings, CROPS["synthetic" if data is None else "own"])),
    )
    story.chapter("Train", "A U-Net that sees foreground and distances; the budget is counted in epochs.")
    story.run("train", "--run", RUN, *here)
    story.chapter("Export", "To ONNX, and proof that it draws what the network in PyTorch draws.")
    story.run("export", "--run", RUN, *here)
    story.chapter("Optimise", "An INT8 variant, kept only if it loses next to nothing on the validation split.")
    story.run("optimize", "--run", RUN, *here)
    story.chapter("Build the bundle", "One archive that describes, checks and tests itself.")
    story.run("bundle", "build", "--run", RUN, *here)
    bundle = next((root / "bundles").glob("*.bundle.zip"))
    story.run("bundle", "verify", str(bundle))
    story.chapter("Evaluate", "On images that took no part in training: numbers, gate, report, signed decision record.")
    story.run("evaluate", str(bundle), *here, may_find=True)
    story.chapter("Segment", "Held-out images, with the bundle alone, in a process that cannot import torch.")
    held_out = _held_out(root)
    story.run_without_torch("segment", str(bundle), *held_out, "--out", str(root / "segmented"), *_read_options(root))
    story.chapter("Ask where a mask comes from", "From one mask back to the data and the commit behind it.")
    mask = min((root / "segmented").glob("*/masks/*.tif"))
    story.run("lineage", str(mask), *here, "--bundle", str(bundle))
    story.chapter("The numbers", "What the evaluation measured, and what the variants weigh and take here.")
    story.close()
    return _facts(root, bundle)


def _clean_folder(workdir: Path) -> Path:
    """An empty folder; what an earlier demo left is removed, anything else is not touched.

    Raises:
        ConfigError: the folder holds something that is not the demo's.
    """
    root = workdir.absolute()
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / MARK).is_file())):
        raise ConfigError(
            f"--workdir {workdir} is there already and was not made by the demo", hint="name a new or an empty folder"
        )
    make_dir(root)
    for path in root.iterdir():
        if path.name == MARK:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_atomic(root / MARK, b"made by `cellfleet demo`, which empties this folder when it is run again\n")
    return root


def _data(story: Story, root: Path, data: Path | None, seed: int) -> Path:
    if data is None:
        text = "Time-lapses of two kinds of cells that grow, move, divide and die, as a phase-contrast microscope sees them."
        story.chapter("Make a data set", text)
        story.run("data", "synth", str(root / "data"), "--seed", str(seed))
        return root / "data"
    story.chapter("Take a data set", f"{data}: nothing is copied.")
    return data.absolute()


def _project(source: Path, seed: int, *, epochs: int | None) -> bytes:
    from cellfleet.cli.init import INSTRUMENT, MODELLING, SERVER, project_text
    from cellfleet.demo.fleet_story import short_times

    values: dict[str, Any] = {
        "model.name": NAME,
        "model.version": VERSION,
        "model.description": "A demonstration model that segments cells in phase-contrast images",
        "data.source": str(source),
        "training.seed": seed,
        "training.validate_every": 10,
        "evaluation.approver": "the demo",
        **short_times.BUNDLE,
        **short_times.SERVER,
        **short_times.INSTRUMENT,
    }
    if epochs is not None:
        values["training.epochs"] = epochs
    return project_text(values, dict.fromkeys((*MODELLING, *SERVER, *INSTRUMENT))).encode()


def epochs_for(root: Path, settings: list[str], crops: int) -> int:
    """Epochs in which about so many crops are seen."""
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
    """Channels and pixel size for files that do not tell them."""
    from cellfleet.data import DataSetVersion

    entries = DataSetVersion.load(root / "dataset.json").split("test")
    options = ["--channels", ",".join(entries[0].channels)]
    sizes = {e.pixel_size_um for e in entries}
    one = sizes.pop()
    return [*options, "--pixel-size-um", f"{one:g}"] if not sizes and one is not None else options


def _facts(root: Path, bundle: Path) -> dict[str, Any]:
    """The numbers of the story, from the files that the commands wrote."""
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


def _print_numbers(facts: dict[str, Any]) -> None:
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
