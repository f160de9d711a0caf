"""The complete demo in one project folder: options, folder, signals, both halves, final numbers."""

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
"""Settings of paths and names, which the demo sets itself."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of the command line.

    Attributes:
        workdir: project folder, as typed; its content is removed first.
        data: the user's own data set; None: synthetic images.
        seed: seed of scenes and training.
        json_file: file for the numbers; None: no file.
        settings: ``section.key=value`` for all commands.
        only_model: stop after the bundle.
        keep: keep the server and the instruments running until Ctrl-C.
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
    """Run the demo; the server and the instruments have ended when it returns.

    Args:
        options: options of the command line.

    Returns:
        Command lines that ended with findings (a failed gate).

    Raises:
        ConfigError: options that contradict each other.
        CommandFailed, CellfleetError: a command failed, or a condition was not met in time.
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
                say("the gate failed: the bundle is not released, and the fleet is not started")
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
    """Refuse invalid options before anything is written."""
    data, json_file = options.data, options.json_file
    if data is not None and not data.exists():
        raise ConfigError(f"--data {data}: no such folder or file", hint="use a folder with images/ and masks/")
    if data is not None and data.resolve().is_relative_to(options.root.resolve()):
        raise ConfigError(
            f"--data {data} lies in the folder {options.workdir}, whose content the demo removes first",
            hint="use another folder with --workdir",
        )
    if json_file is not None and json_file.is_dir():
        raise ConfigError(f"--json {json_file} is a folder", hint="use a file, for example --json numbers.json")
    for text in options.settings:
        if text.partition("=")[0].strip() in PLACES:
            raise ConfigError(
                f"--set {text}: the demo sets this itself", hint="remove it; --workdir moves the complete project"
            )
    if options.keep and options.only_model:
        raise ConfigError("--keep and --only-model exclude each other", hint="remove one of them")


def _clean_folder(options: DemoOptions) -> None:
    """Make an empty folder; remove only files of an earlier demo.

    Raises:
        ConfigError: the folder holds files of another origin.
    """
    root = options.root
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / MARK).is_file())):
        raise ConfigError(
            f"--workdir {options.workdir} already exists and was not made by the demo",
            hint="use a new or an empty folder",
        )
    make_dir(root)
    for path in root.iterdir():
        if path.name == MARK:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_atomic(root / MARK, b"made by `cellfleet demo`, which removes the content of this folder at its next run\n")


class _Numbers:
    """The numbers of the demo, written to the --json file at the end."""

    def __init__(self, runner: CommandRunner, options: DemoOptions) -> None:
        self._runner, self._options, self._begun = runner, options, time.monotonic()
        self.facts: dict[str, Any] = {}

    def end(self, more: Mapping[str, Any]) -> None:
        """Write and print the numbers; ``more`` are those of the fleet."""
        self.facts |= more
        self.facts["seconds"] = {**self._runner.seconds, "all": round(time.monotonic() - self._begun, 1)}
        json_file = self._options.json_file
        if json_file is not None:
            make_dir(json_file.absolute().parent)
            text = json.dumps(self.facts, indent=2, ensure_ascii=False, allow_nan=False)
            write_atomic(json_file, f"{text}\n".encode())
        say(f"project   {self._options.root}")
        say(f"the complete demo took {self.facts['seconds']['all']:.0f} s")


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal as Ctrl-C, so that started programs are ended."""

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
    """Wait for Ctrl-C while the server and the instruments run."""
    say(f"the pages are at {address}; Ctrl-C ends the server and the instruments")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
