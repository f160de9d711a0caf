"""Files and folders to frames with their identity: what ``segment_files`` goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellfleet.canonical import digest_of, sha256_file
from cellfleet.data.files import FOREIGN, SUFFIXES
from cellfleet.data.images.frame import Frame
from cellfleet.data.images.frames import iter_frames
from cellfleet.data.images.reader import decode_image, load_raw
from cellfleet.errors import ReadError
from cellfleet.runtime.video import VIDEO_SUFFIXES, count_frames, is_video, read_video


@dataclass(frozen=True)
class Reading:
    """How files become frames.

    Attributes:
        channels: channels that the model needs.
        file_channels: names of the files' channels in their order, when the user gave them.
        pixel_size_um: when the user gave it; it counts before what files and index.csv say.
    """

    channels: tuple[str, ...]
    file_channels: tuple[str, ...] = ()
    pixel_size_um: float | None = None


@dataclass(frozen=True)
class Input:
    """One file to be segmented.

    Attributes:
        name: what its results are to be called: path below the folder that was named, without suffix.
        path: the file, absolute.
        frames: number of frames that it announces; 1 for an image.
        pixel_size_um, channels, metadata: what index.csv says of it.
    """

    name: str
    path: Path
    frames: int
    pixel_size_um: float | None = None
    channels: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The path as text that every file format can hold."""
        return printable(str(self.path))


@dataclass(frozen=True)
class InputIdentity:
    """Which frame this is; two runs over the same identity give the same mask.

    Attributes:
        source: path of the file.
        index: number of the frame in a video, from 0; None for an image.
        sha256: digest of the file.
        reading: digest of what the user and index.csv say of channels and pixel size.
    """

    source: str
    index: int | None
    sha256: str
    reading: str


@dataclass(frozen=True)
class LoadedFrame:
    """A frame that is ready to be segmented: what it should be called, its identity and its pixels."""

    name: str
    identity: InputIdentity
    frame: Frame


def list_inputs(paths: Sequence[Path], out: Path) -> list[Input]:
    """Expand files and folders; a file that is named twice counts once, what lies below ``out`` is left out.

    Images of kinds that are not read (JPEG, CZI ...) are in the list, so that they are named rather than passed over.

    Raises:
        ReadError: a path that does not exist, a faulty index.csv, or no image and no video at all.
    """
    found: dict[Path, Input] = {}
    for item in iter_frames(paths, suffixes=(*VIDEO_SUFFIXES, *FOREIGN)):
        path = item.path.absolute()
        if path in found or out.absolute() in path.parents:
            continue
        name = item.id
        if is_video(path):
            name = name[: -len(path.suffix)]
        found[path] = Input(
            printable(name), path, _frames(path), item.pixel_size_um, tuple(item.channels or ()), item.metadata
        )
    if not found:
        raise ReadError(
            f"no image and no video in {', '.join(map(str, paths))}",
            hint=f"read are files that end in {', '.join((*SUFFIXES, *VIDEO_SUFFIXES))}",
        )
    return list(found.values())


def load_frames(item: Input, reading: Reading, wanted: Callable[[InputIdentity], bool]) -> Iterator[LoadedFrame]:
    """Read the frames of a file that are ``wanted``, one after the other.

    Raises:
        ReadError: it cannot be read; frames that were given out before stay good.
    """
    channels = reading.file_channels or item.channels or reading.channels
    pixel_size_um = reading.pixel_size_um or item.pixel_size_um
    rules = digest_of({"channels": list(channels), "pixel_size_um": pixel_size_um})[:16]
    if not is_video(item.path):
        raw = load_raw(item.path)
        identity = InputIdentity(item.source, None, raw.sha256, rules)
        if wanted(identity):
            frame = decode_image(raw, item.source, channels=channels)
            del raw  # a frame may be most of the memory there is
            yield LoadedFrame(item.name, identity, _described(frame, item, pixel_size_um))
        return
    try:
        sha256 = sha256_file(item.path)
    except OSError as e:
        raise ReadError(f"{item.source}: {e.strerror or e}", hint="check the path and its permissions") from e

    def ask(index: int) -> bool:
        return wanted(InputIdentity(item.source, index, sha256, rules))

    for frame in read_video(item.path, channels, pixel_size_um=pixel_size_um, wanted=ask):
        index = int(frame.metadata["frame_index"])
        name = f"{item.name}@{index:06d}"
        yield LoadedFrame(
            name, InputIdentity(item.source, index, sha256, rules), _described(frame, item, pixel_size_um)
        )


def printable(text: str) -> str:
    """Text without the stand-ins that Python puts for file names that are not valid Unicode."""
    return text.encode("utf-8", "replace").decode()


def _frames(path: Path) -> int:
    try:
        return max(1, count_frames(path)) if is_video(path) else 1
    except ReadError:
        return 1  # it is reported when its turn comes


def _described(frame: Frame, item: Input, pixel_size_um: float | None) -> Frame:
    metadata: dict[str, Any] = {**item.metadata, **frame.metadata}
    size = pixel_size_um if pixel_size_um is not None else frame.pixel_size_um
    return Frame(frame.pixels, frame.channels, size, metadata, frame.source)
