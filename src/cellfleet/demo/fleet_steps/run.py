"""The second half of the demo: from a bundle to three instruments and back."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellfleet.demo.command_runner import CommandRunner
from cellfleet.errors import StorageError

STEPS = 8
NEEDED_MB = 2000
"""Free disk for the fleet: it needs about half, and instruments take no frames below their own limit."""
PASSPHRASES = ("CELLFLEET_KEY_PASSPHRASE", "CELLFLEET_ONLINE_PASSPHRASE")


@dataclass(frozen=True)
class FleetOptions:
    """Input of the second half.

    Attributes:
        root: project folder.
        bundle: bundle of the first half.
        run: training run of the bundle.
        seed: seed of the scenes.
        own_data: cameras replay held-out frames of the data set instead of synthetic scenes.
        settings: ``section.key=value`` for all commands.
    """

    root: Path
    bundle: Path
    run: str
    seed: int
    own_data: bool
    settings: tuple[str, ...]


def check_free_space(root: Path, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> None:
    """Check that the fleet fits on the disk.

    Args:
        root: existing project folder.
        free_bytes: gives the free bytes of a folder's disk.

    Raises:
        StorageError: there is too little free space.
    """
    free_mb = free_bytes(root) / 1e6
    if free_mb < NEEDED_MB:
        raise StorageError(
            f"{root}: {free_mb:.0f} MB free; the fleet of the demo needs {NEEDED_MB} MB",
            hint="free some space, use another disk with --workdir, or stop after the bundle with --only-model",
        )


def run_fleet_steps(
    runner: CommandRunner,
    options: FleetOptions,
    end: Callable[[dict[str, Any]], None],
    stay: Callable[[str], None] | None = None,
) -> None:
    """Run the steps of the fleet; the server and the instruments have ended when it returns.

    Args:
        runner: prints steps and runs commands.
        options: input of the second half.
        end: called with the numbers, as ``--json`` writes them.
        stay: called after ``end`` with the server's address, while all programs still run.

    Raises:
        CommandFailed, CellfleetError: a command failed, or a condition was not met in time.
    """
    from cellfleet.demo.fleet_steps import final_numbers, rollout_steps
    from cellfleet.demo.fleet_steps.background_programs import Programs
    from cellfleet.demo.fleet_steps.demo_fleet import DemoFleet

    with _passphrases(), Programs(options.root / "logs", {}) as programs:
        fleet = DemoFleet(runner, options.root, programs, options.settings)
        try:
            rollout_steps.open_fleet(fleet)
            rollout_steps.open_instruments(fleet, _scenes(options))
            rollout_steps.first_release(fleet, options.bundle)
            rollout_steps.inverted_model(fleet, options.run)
            rollout_steps.memory_hungry_model(fleet, options.run)
            rollout_steps.faults(fleet)
            final_numbers.lineage(fleet)
            final_numbers.numbers(fleet)
            runner.close()
            end({name: fleet.numbers[name] for name in final_numbers.NUMBERS})
            if stay is not None:
                stay(f"{fleet.server} (sign in as vera, olga, adam or ada; the password is {fleet.password})")
        finally:
            if fleet.proxy is not None:
                fleet.proxy.close()


def _scenes(options: FleetOptions) -> Callable[[Path, int], Any]:
    """A function that makes the scene of the n-th instrument."""
    from cellfleet.cli.common import progress_bar
    from cellfleet.data import DataSetVersion
    from cellfleet.demo.fleet_steps.camera_scenes import Scene, held_out_scene, synthetic_scene

    def make(folder: Path, number: int) -> Scene:
        if options.own_data:
            return held_out_scene(folder, DataSetVersion.load(options.root / "dataset.json"), number)
        with progress_bar(f"scene of instrument {number}") as progress:
            return synthetic_scene(folder, options.seed, number, progress)

    return make


@contextmanager
def _passphrases() -> Iterator[None]:
    """Set passphrases of the keys for this process and its children; random if none are set."""
    made = [name for name in PASSPHRASES if name not in os.environ]
    os.environ.update({name: secrets.token_urlsafe(18) for name in made})
    try:
        yield
    finally:
        for name in made:
            os.environ.pop(name, None)
