"""Frames on the disk: written by the camera, read by the agent.

::

    HOME/frames/<experiment>/experiment.json    ExperimentFile; written again when the experiment ends
    HOME/frames/<experiment>/<frame>.<suffix>   the raw bytes, unchanged
    HOME/frames/<experiment>/<frame>.json       FrameFile; written last and durably: only with it the frame counts as taken
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from cellfleet.canonical import sha256_hex
from cellfleet.errors import WireError
from cellfleet.ports import make_dir, write_atomic
from cellfleet.ports.disk import storage_error
from cellfleet.wire.base import Key, Message, Text, Time, parse
from cellfleet.wire.telemetry_events import FrameTaken

EXPERIMENT = "experiment.json"
WriteFn = Callable[[Path, bytes], None]
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}")


class ExperimentFile(Message):
    """One time-lapse on one plate.

    Attributes:
        number: grows with every experiment of an instrument.
        channels: names of the channels, in the order of the files.
        pixel_size_um: default for files that do not contain it.
    """

    format_version: Literal[1] = 1
    experiment: Key
    number: int = Field(ge=1)
    plate: Text = ""
    plate_format: int = 96
    channels: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    started_at: Time
    ended_at: Time | None = None


class FrameFile(Message):
    """One taken frame.

    Attributes:
        file: name of the raw file, beside this one.
        original: name of the file in the source, unchanged.
        channels, pixel_size_um: as the source names them for this frame; empty and None: it does not.
        position: number of the frame in the source, from 0, across all experiments.
        source_time_s: time of the frame in the source; None: the source has no times.
    """

    format_version: Literal[1] = 1
    taken: FrameTaken
    file: str = Field(max_length=255)
    original: str = Field(default="", max_length=4096)
    channels: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    position: int = Field(default=0, ge=0)
    source_time_s: float | None = None


class FramesFolder:
    """``HOME/frames``.

    Args:
        root: the folder.
        write: writes a file durably; tests pass one that fails.
    """

    def __init__(self, root: Path, write: WriteFn = write_atomic) -> None:
        self.root, self._write = root, write

    def names(self) -> list[str]:
        """Experiments, oldest first (their names begin with their number)."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if (p / EXPERIMENT).is_file())

    def read(self, experiment: str) -> ExperimentFile:
        """Read the facts of an experiment.

        Raises:
            WireError: the file is damaged, or of another version.
            StorageError: the file cannot be read.
        """
        path = self.root / experiment / EXPERIMENT
        try:
            return parse(ExperimentFile, path.read_bytes())
        except OSError as e:
            raise storage_error("read", path, e) from e

    def save(self, experiment: ExperimentFile) -> None:
        """Write an experiment's facts durably."""
        self._write(self.root / experiment.experiment / EXPERIMENT, experiment.to_json())

    def frame(self, experiment: str, name: str) -> FrameFile:
        """Read the facts of a frame; errors as of ``read``.

        Args:
            experiment: its name.
            name: of the frame.
        """
        path = self.root / experiment / f"{name}.json"
        try:
            return parse(FrameFile, path.read_bytes())
        except OSError as e:
            raise storage_error("read", path, e) from e

    def frame_names(self, experiment: str) -> list[str]:
        """Taken frames, in order (their names begin with their index)."""
        folder = self.root / experiment
        if not folder.is_dir():
            return []
        return sorted(p.stem for p in folder.iterdir() if _is_frame(p.name))

    def put(self, facts: FrameFile, data: bytes) -> None:
        """Store a frame: sync all raw bytes, then write its facts. The call may be repeated.

        Args:
            facts: of the frame.
            data: raw bytes.

        Raises:
            StorageError: the disk refuses; the frame is then not taken.
        """
        folder = make_dir(self.root / facts.taken.experiment)
        self._write(folder / facts.file, data)
        self._write(folder / f"{facts.taken.frame}.json", facts.to_json())


def _is_frame(name: str) -> bool:
    return name.endswith(".json") and name != EXPERIMENT and not name.startswith(".")


def experiment_name(number: int, at: datetime) -> str:
    """Name an experiment, for example ``e00012-20260131-174500``: sorts by number, shows the time.

    Args:
        number: of the experiment.
        at: its start.

    Returns:
        A name that is safe as a file name.
    """
    return f"e{number:05d}-{at:%Y%m%d-%H%M%S}"


def number_of(experiment: str) -> int:
    """The number in a name; 0 when it has none."""
    found = re.match(r"e(\d+)-", experiment)
    return int(found[1]) if found else 0


def frame_name(index: int, original: str) -> str:
    """Name a frame: its index, and those characters of the original name that are safe in any file system.

    Args:
        index: of the frame in the experiment, from 0.
        original: name of the image in the source.

    Returns:
        A name that is safe as a file name.

    >>> frame_name(7, "../../Zellen \u00fcber Nacht #3.tif")
    'f00007-Zellen-uber-Nacht-3'
    """
    stem = re.split(r"[\\/]", original)[-1].partition(".")[0]
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:60].rstrip("-")
    return f"f{index:05d}-{safe}" if safe else f"f{index:05d}"


def safe_suffix(original: str) -> str:
    """Suffix of the raw file: that of the original when it is safe, else ``.raw``."""
    low = original.lower()
    for double in (".ome.tiff", ".ome.tif"):
        if low.endswith(double):
            return double
    suffix = Path(low).suffix
    return suffix if _SUFFIX.fullmatch(suffix) and suffix != ".json" else ".raw"


def frame_taken(
    experiment: str, index: int, data: bytes, *, original: str, well: str, field: int, time_s: float, at: datetime
) -> FrameTaken:
    """Create the event of a frame.

    Args:
        experiment: its name.
        index: of the frame in the experiment, from 0.
        data: raw bytes.
        original: name of the image in the source.
        well: a Key.
        field: from 1.
        time_s: since the first frame of the experiment.
        at: time at which it was taken.

    Returns:
        The event, with digest and size of the bytes.
    """
    return FrameTaken(
        experiment=experiment,
        frame=frame_name(index, original),
        index=index,
        well=well,
        field=field,
        time_s=max(0.0, time_s),
        taken_at=at,
        sha256=sha256_hex(data),
        bytes=len(data),
        problem=problem_of(data),
    )


def problem_of(data: bytes) -> str:
    """Why the bytes are not a supported image, judged by their first bytes; empty: they may be one."""
    if not data:
        return "the file is empty (0 bytes)"
    if data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+") or data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG is not supported: its compression changes outlines and intensities"
    return "neither TIFF nor PNG"


def read_quietly(folder: FramesFolder, experiment: str, name: str) -> FrameFile | None:
    """Read the facts of a frame.

    Args:
        folder: of all frames.
        experiment: its name.
        name: of the frame.

    Returns:
        The facts; None when they are damaged or of another version.
    """
    try:
        return folder.frame(experiment, name)
    except WireError:
        return None
