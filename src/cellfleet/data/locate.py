"""URIs of a manifest to files on this machine, and back."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from cellfleet.errors import DataError, ReadError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")


def to_uri(path: Path, root: Path) -> str:
    """A file's ``/``-separated path relative to ``root``; its ``file://`` URI when it lies outside."""
    absolute, base = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else absolute.as_uri()


def to_path(uri: str, root: Path) -> Path:
    """The file that a URI of a manifest means.

    Raises:
        ReadError: a scheme that cellfleet has no reader for.
        DataError: a relative path that leads out of the root.
    """
    match = _SCHEME.match(uri)
    if match and match[1].lower() == "file":
        return Path(url2pathname(unquote(urlsplit(uri).path)) if os.name == "nt" else unquote(urlsplit(uri).path))
    if match:
        raise ReadError(
            f"{uri}: cellfleet has no reader for {match[1]}://",
            hint="copy the files to this machine and load the version with its root there",
        )
    relative = PurePosixPath(uri)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"the manifest names {uri!r}, which is not below its root", hint="freeze the data set again")
    return root.joinpath(*relative.parts)
