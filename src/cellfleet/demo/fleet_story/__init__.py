"""The second half of ``cellfleet demo``: from a bundle to three instruments, and the story back."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellfleet.demo.story import Story
from cellfleet.errors import StorageError

CHAPTERS = 8
ROOM_MB = 2000
"""Free disk for the fleet: about half of it is filled, and instruments take no frames below their own limit."""
PASSPHRASES = ("CELLFLEET_KEY_PASSPHRASE", "CELLFLEET_ONLINE_PASSPHRASE")


@dataclass(frozen=True)
class Plot:
    """What the second half begins with.

    Attributes:
        root: project folder.
        bundle: the good one.
        run: training run that it came from.
        seed: of the scenes.
        own_data: cameras show held-out frames of the data set instead of synthetic scenes.
        settings: ``section.key=value`` for all commands.
    """

    root: Path
    bundle: Path
    run: str
    seed: int
    own_data: bool
    settings: tuple[str, ...]


def check_room(root: Path, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> None:
    """There is room for a fleet.

    Args:
        root: project folder; it exists.
        free_bytes: free space of the disk on which a folder lies.

    Raises:
        StorageError: too little.
    """
    free_mb = free_bytes(root) / 1e6
    if free_mb < ROOM_MB:
        raise StorageError(
            f"{root}: {free_mb:.0f} MB are free, and the fleet of the demo needs {ROOM_MB} MB",
            hint="free some space, name a folder on another disk with --workdir, or stop after the bundle: --only-model",
        )


def tell(
    story: Story, plot: Plot, end: Callable[[dict[str, Any]], None], stay: Callable[[str], None] | None = None
) -> None:
    """Tell the chapters of the fleet; server and instruments have ended when it returns.

    Args:
        story: tells and runs commands.
        plot: what it begins with.
        end: takes the numbers, as ``--json`` writes them.
        stay: called after that with the server's address, while everything still runs.

    Raises:
        StoryEnds, CellfleetError: a command failed, or something did not happen in time.
    """
    from cellfleet.demo.fleet_story import chapters, ending
    from cellfleet.demo.fleet_story.cast import Cast
    from cellfleet.demo.fleet_story.programs import Programs

    with _passphrases(), Programs(plot.root / "logs", {}) as programs:
        cast = Cast(story, plot.root, programs, plot.settings)
        try:
            chapters.open_fleet(cast)
            chapters.open_instruments(cast, _scenes(plot))
            chapters.first_release(cast, plot.bundle)
            chapters.nonsense(cast, plot.run)
            chapters.greedy(cast, plot.run)
            chapters.troubles(cast)
            ending.lineage(cast)
            ending.numbers(cast)
            story.close()
            end({name: cast.numbers[name] for name in ending.NUMBERS})
            if stay is not None:
                stay(f"{cast.server} (sign in as vera, olga, adam or ada; the password is {cast.password})")
        finally:
            if cast.cable is not None:
                cast.cable.close()


def _scenes(plot: Plot) -> Callable[[Path, int], Any]:
    """Makes what the camera of the n-th instrument sees."""
    from cellfleet.cli.common import progress_bar
    from cellfleet.data import DataSetVersion
    from cellfleet.demo.fleet_story.scenes import Scene, held_out_scene, synthetic_scene

    def make(folder: Path, number: int) -> Scene:
        if plot.own_data:
            return held_out_scene(folder, DataSetVersion.load(plot.root / "dataset.json"), number)
        with progress_bar(f"scene of instrument {number}") as progress:
            return synthetic_scene(folder, plot.seed, number, progress)

    return make


@contextmanager
def _passphrases() -> Iterator[None]:
    """Passphrases of the keys, for this process and those that it starts; random where none are set."""
    made = [name for name in PASSPHRASES if name not in os.environ]
    os.environ.update({name: secrets.token_urlsafe(18) for name in made})
    try:
        yield
    finally:
        for name in made:
            os.environ.pop(name, None)
