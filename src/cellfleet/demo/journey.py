"""The whole demo in one project folder: options, folder, signals, both halves, and the numbers at the end."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cellfleet.cli.common import say
from cellfleet.demo import model_steps
from cellfleet.demo.command_runner import CommandRunner
from cellfleet.demo.fleet_steps import run as fleet_steps
from cellfleet.errors import ConfigError
from cellfleet.ports import make_dir, write_atomic

MARK = ".cellfleet-demo"
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
"""Settings that say where files are, and names; the demo sets them itself."""


@dataclass(frozen=True)
class DemoOptions:
    """What the command line asks for.

    Attributes:
        workdir: project folder, as it was typed; emptied first.
        data: the user's own data set; None: synthetic images.
        seed: of scenes and training.
        json_file: where the numbers are written; None: nowhere.
        settings: ``section.key=value`` for all commands.
        only_model: stop after the bundle.
        keep: keep server and instruments running until Ctrl-C.
    """

    workdir: Path
    data: Path | None
    seed: int
    json_file: Path | None
    settings: tuple[str, ...]
    only_model: bool
    keep: bool

    @property
    def root(self) -> Path:
        """The project folder, absolute."""
        return self.workdir.absolute()


def run_demo(options: DemoOptions) -> list[str]:
    """Run the demo; server and instruments have ended when it returns.

    Args:
        options: what the command line asks for.

    Returns:
        Commands that ended with findings (a failed gate), as they were typed.

    Raises:
        ConfigError: options that contradict each other.
        CommandFailed, CellfleetError: a command failed, or something did not happen in time.
    """
    _check_options(options)
    _clean_folder(options)
    if not options.only_model:
        fleet_steps.check_free_space(options.root)
    runner = CommandRunner(steps=model_steps.STEPS + (0 if options.only_model else fleet_steps.STEPS))
    numbers = _Numbers(runner, options)
    with _ends_on_signals():
        model = model_steps.ModelOptions(options.root, options.data, options.seed, options.settings)
        numbers.facts = model_steps.run_model_steps(runner, model)
        model_steps.print_numbers(numbers.facts)
        if options.only_model or runner.findings:
            if runner.findings and not options.only_model:
                say("the gate failed: this bundle is not released, and no fleet is started")
            numbers.end({})
            return runner.findings
        fleet = fleet_steps.FleetOptions(
            options.root,
            Path(numbers.facts["bundle"]["path"]),
            model_steps.RUN,
            options.seed,
            options.data is not None,
            options.settings,
        )
        fleet_steps.run_fleet_steps(runner, fleet, numbers.end, _wait_for_interrupt if options.keep else None)
    return runner.findings


def _check_options(options: DemoOptions) -> None:
    """Refuse options that make no sense, before anything is done."""
    data, json_file = options.data, options.json_file
    if data is not None and not data.exists():
        raise ConfigError(f"--data {data}: no such folder or file", hint="name a folder with images/ and masks/")
    if data is not None and data.resolve().is_relative_to(options.root.resolve()):
        raise ConfigError(
            f"--data {data} lies in the folder {options.workdir}, which the demo empties first",
            hint="name another folder with --workdir",
        )
    if json_file is not None and json_file.is_dir():
        raise ConfigError(f"--json {json_file} is a folder", hint="name a file, for example --json numbers.json")
    for text in options.settings:
        if text.partition("=")[0].strip() in PLACES:
            raise ConfigError(
                f"--set {text}: the demo sets this itself", hint="leave it out; --workdir moves the whole project"
            )
    if options.keep and options.only_model:
        raise ConfigError("--keep and --only-model contradict each other", hint="leave one of them out")


def _clean_folder(options: DemoOptions) -> None:
    """Make an empty folder; what an earlier demo left is removed, anything else is not touched.

    Raises:
        ConfigError: the folder holds something that is not the demo's.
    """
    root = options.root
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / MARK).is_file())):
        raise ConfigError(
            f"--workdir {options.workdir} is there already and was not made by the demo",
            hint="name a new or an empty folder",
        )
    make_dir(root)
    for path in root.iterdir():
        if path.name == MARK:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_atomic(root / MARK, b"made by `cellfleet demo`, which empties this folder when it is run again\n")


class _Numbers:
    """The numbers of the demo: written for --json at the end."""

    def __init__(self, runner: CommandRunner, options: DemoOptions) -> None:
        self._runner, self._options, self._begun = runner, options, time.monotonic()
        self.facts: dict[str, Any] = {}

    def end(self, more: Mapping[str, Any]) -> None:
        """Write and print them; ``more`` are the numbers of the fleet."""
        self.facts |= more
        self.facts["seconds"] = {**self._runner.seconds, "all": round(time.monotonic() - self._begun, 1)}
        json_file = self._options.json_file
        if json_file is not None:
            make_dir(json_file.absolute().parent)
            text = json.dumps(self.facts, indent=2, ensure_ascii=False, allow_nan=False)
            write_atomic(json_file, f"{text}\n".encode())
        say(f"project   {self._options.root}")
        say(f"the whole demo took {self.facts['seconds']['all']:.0f} s")


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal as Ctrl-C, so that what was started is ended, too."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if before[number] == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        handled = []
    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def _wait_for_interrupt(address: str) -> None:
    """Wait for Ctrl-C while server and instruments run on."""
    say(f"the pages are at {address}; Ctrl-C ends everything")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
