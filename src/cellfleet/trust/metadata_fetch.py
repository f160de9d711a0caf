"""Read metadata files from a server or a folder. Every read has a greatest length and a time limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cellfleet.errors import NetworkError
from cellfleet.ports import Clock, SystemClock
from cellfleet.ports.disk import storage_error
from cellfleet.ports.http import Http
from cellfleet.trust.layout import MAX_BYTES_REST
from cellfleet.trust.refusals import EndlessData

Fetch = Callable[[str, int], bytes | None]
"""(file name, greatest length) -> content; None: there is no such file.

Raises NetworkError when it cannot be had now, EndlessData when it is longer.
"""

NAME = re.compile(r"[0-9a-z][0-9a-z.-]{0,63}\.json")
_PATIENCE_S = 60.0
_GONE = (404, 410)


def http_fetch(
    http: Http,
    base_url: str,
    headers: Callable[[], Mapping[str, str]] = dict,
    clock: Clock | None = None,
    patience_s: float = _PATIENCE_S,
) -> Fetch:
    """Read files below a URL.

    Args:
        http: the network.
        base_url: URL without the file's name.
        headers: called for each request; gives headers such as ``Authorization``.
        clock: measures the time limit (default: the system's clock).
        patience_s: greatest time for one file, in seconds.

    Returns:
        A function that reads a file; see ``Fetch``.
    """
    watch = clock or SystemClock()

    def fetch(name: str, most_bytes: int) -> bytes | None:
        url = f"{base_url.rstrip('/')}/{name}"
        begun = watch.monotonic_s()
        with http.stream(url, headers={**headers(), "Accept-Encoding": "identity"}) as answer:
            if answer.status in _GONE:
                return None
            if answer.status != 200:
                raise NetworkError(f"{url}: the server answers {answer.status}", hint="it is retried automatically")
            parts, size = [], 0
            for chunk in answer.chunks:
                size += len(chunk)
                if size > most_bytes:
                    raise EndlessData(f"{url}: more than the {most_bytes} bytes that it may have")
                if watch.monotonic_s() - begun > patience_s:
                    raise NetworkError(
                        f"{url}: it takes longer than {patience_s:g} s", hint="it is retried automatically"
                    )
                parts.append(chunk)
            return b"".join(parts)

    return fetch


def folder_fetch(folder: Path) -> Fetch:
    """Read files of a folder as ``trust export`` writes it. Raises StorageError when the disk fails."""

    def fetch(name: str, most_bytes: int) -> bytes | None:
        path = folder / name
        try:
            with path.open("rb") as f:
                data = f.read(most_bytes + 1)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise storage_error("read", path, e) from e
        if len(data) > most_bytes:
            raise EndlessData(f"{path}: more than the {most_bytes} bytes that it may have")
        return data

    return fetch


def read_folder(folder: Path) -> dict[str, bytes]:
    """Read all metadata files of a folder.

    Returns:
        Content by file name; empty when the folder does not exist.

    Raises:
        StorageError: the disk fails.
        EndlessData: a file is too long.
    """
    fetch = folder_fetch(folder)
    try:
        names = sorted(p.name for p in folder.iterdir() if NAME.fullmatch(p.name)) if folder.is_dir() else []
    except OSError as e:
        raise storage_error("read", folder, e) from e
    return {name: data for name in names if (data := fetch(name, MAX_BYTES_REST)) is not None}
