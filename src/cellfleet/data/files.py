"""Bytes from the disk, limits against hostile headers, and quiet C libraries."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from cellfleet.errors import ReadError

MAX_VALUES = 2**30
"""Most pixel values (channels x height x width) of one image: 32,768 x 32,768. OpenCV has the same limit."""

SUFFIXES = (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".png", ".ome.zarr", ".zarr")
"""Suffixes of the images that cellfleet reads, longest first."""

FOREIGN = (
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".webp",
    ".czi",
    ".nd2",
    ".lif",
    ".lsm",
    ".oib",
    ".oir",
    ".vsi",
    ".npy",
    ".ims",
)
"""Suffixes of images that cellfleet refuses, by name rather than in silence."""

_messages: ContextVar[list[logging.LogRecord] | None] = ContextVar("_messages", default=None)


def image_suffix(name: str) -> str:
    """The suffix by which a file counts as an image, lower case; '' when it is none.

    >>> image_suffix("A1.OME.TIF"), image_suffix("notes.txt")
    ('.ome.tif', '')
    """
    low = name.lower()
    return next((s for s in SUFFIXES if low.endswith(s) and len(low) > len(s)), "")


def stem_of(name: str) -> str:
    """A name without its image suffix.

    >>> stem_of("well A1.ome.tif"), stem_of("v1.2")
    ('well A1', 'v1.2')
    """
    return name[: len(name) - len(image_suffix(name))] if image_suffix(name) else name


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which t2 comes before t10; ties are broken by the text itself.

    >>> sorted(["t10", "t2"], key=natural_key)
    ['t2', 't10']
    """
    parts = re.split(r"([0-9]+)", text)
    return [(0, int(p), "") if i % 2 else (1, 0, p.casefold()) for i, p in enumerate(parts)] + [(2, 0, text)]


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        ReadError: missing, a folder, not allowed, or empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as e:
        raise ReadError(f"{path}: no such file", hint="check the path") from e
    except IsADirectoryError as e:
        raise ReadError(f"{path}: is a folder, not an image", hint="name a file, or an .ome.zarr folder") from e
    except OSError as e:
        raise ReadError(f"{path}: {e.strerror or e}", hint="check the permissions and the disk") from e
    if not data:
        raise ReadError(f"{path}: the file is empty (0 bytes)", hint="copy it again from where it came from")
    return data


def check_size(values: int, source: str) -> None:
    """Refuse an image whose header announces more than MAX_VALUES pixel values, before memory is taken."""
    if values > MAX_VALUES:
        raise ReadError(
            f"{source}: the header announces {values:,} pixel values, more than the limit of {MAX_VALUES:,}",
            hint="cut the image into parts",
        )


def damaged(source: str, reason: str) -> ReadError:
    """The error for a truncated or corrupt file."""
    return ReadError(f"{source}: truncated or damaged: {reason}", hint="copy it again from where it came from")


class _Divert(logging.Filter):
    """Keeps what a library logs during a read of ours; lets everything else pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        kept = _messages.get()
        if kept is None:
            return True
        kept.append(record)
        return False


_divert = _Divert()


@contextmanager
def collected_log(logger: str) -> Iterator[list[logging.LogRecord]]:
    """Collect, instead of printing, what ``logger`` says inside the block (in this thread only)."""
    target = logging.getLogger(logger)
    if _divert not in target.filters:
        target.addFilter(_divert)
    records: list[logging.LogRecord] = []
    token = _messages.set(records)
    try:
        yield records
    finally:
        _messages.reset(token)
