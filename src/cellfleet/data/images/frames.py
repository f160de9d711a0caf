"""Files and folders to frames: what ``cellfleet segment`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellfleet.data.files import image_suffix, natural_key, stem_of
from cellfleet.data.folder import INDEX, walk
from cellfleet.data.images.frame import Frame
from cellfleet.data.images.reader import read_image
from cellfleet.data.index_csv import Index, read_index
from cellfleet.errors import ReadError


@dataclass(frozen=True)
class FrameFile:
    """A file to be read as a frame.

    Attributes:
        id: path below the folder that was named, without image suffix; the name of a file that was named itself.
        path: the file.
        pixel_size_um: what index.csv says of it; None otherwise.
        channels: likewise.
        metadata: the row's group, stratum and further columns.
    """

    id: str
    path: Path
    pixel_size_um: float | None = None
    channels: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def read(self, channels: Sequence[str] | None = None, pixel_size_um: float | None = None) -> Frame:
        """Read the frame; the arguments count before index.csv, and index.csv before the file.

        Raises:
            ReadError: it cannot be read.
        """
        frame = read_image(self.path, channels=channels or self.channels)
        return frame.with_pixel_size(pixel_size_um or self.pixel_size_um)


def iter_frames(paths: Iterable[Path], *, suffixes: Sequence[str] = ()) -> Iterator[FrameFile]:
    """Expand files and folders, in natural order.

    Args:
        paths: files (taken whatever their suffix) and folders (searched below; OME-Zarr images count as files). A folder
            of ``images/`` beside an ``index.csv`` takes pixel sizes from it.
        suffixes: further suffixes, lower case, that count in folders (videos).

    Returns:
        An iterator of file, pixel size and metadata; no image is read.

    Raises:
        ReadError: a path that does not exist, or a faulty index.csv.
    """
    indexes: dict[Path, Index] = {}
    for path in paths:
        if not path.exists():
            raise ReadError(f"{path}: no such file or folder", hint="check the path")
        if path.is_dir() and not image_suffix(path.name):
            yield from _in_folder(path, tuple(suffixes), indexes)
        else:
            yield _described(path, stem_of(path.name), path.parent, indexes)


def _in_folder(folder: Path, suffixes: tuple[str, ...], indexes: dict[Path, Index]) -> Iterator[FrameFile]:
    images = folder / "images"
    base = images if images.is_dir() and (folder / "masks").is_dir() else folder
    wanted = [p for p in walk(base) if image_suffix(p.name) or p.name.lower().endswith(suffixes or ("\0",))]
    for path in sorted(wanted, key=lambda p: natural_key(p.relative_to(base).as_posix())):
        yield _described(path, stem_of(path.relative_to(base).as_posix()), base, indexes)


def _described(path: Path, frame_id: str, base: Path, indexes: dict[Path, Index]) -> FrameFile:
    for folder in (base, base.parent):
        if (folder / INDEX).is_file():
            if folder not in indexes:
                indexes[folder] = read_index(folder / INDEX)
            row = indexes[folder].rows.get(frame_id)
            if row is not None:
                known = {"group": row.group, "stratum": row.stratum}
                metadata = {k: v for k, v in known.items() if v} | dict(row.metadata)
                return FrameFile(frame_id, path, row.pixel_size_um, row.channels, metadata)
    return FrameFile(frame_id, path)
