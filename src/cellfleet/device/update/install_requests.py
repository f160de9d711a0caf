"""Install requests of other programs to the running agent: files in ``state/requests``, processed in order of name."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import Literal

from cellfleet.device.system.home import Home
from cellfleet.errors import WireError
from cellfleet.ports import write_atomic
from cellfleet.wire.base import Key, Message, Text, Time, parse
from cellfleet.wire.states import ArtifactRef, ReleaseRef


class InstallRequest(Message):
    """A request to install a release from an offline folder.

    Attributes:
        name: of the request. The journal and the status repeat it, so that the requesting program finds the outcome.
        folder: absolute path.
        release: from the folder; files of older programs have a ``release_id``, which is ignored.
    """

    format_version: Literal[1] = 1
    name: Key
    folder: Text
    release: ReleaseRef | ArtifactRef
    asked_at: Time


def request_name(now: datetime) -> str:
    """A name that sorts by time."""
    return f"install-{now:%Y%m%dT%H%M%S.%f}"


def put_request(home: Home, request: InstallRequest) -> None:
    """Write a request for the agent.

    Args:
        home: HOME of the instrument.
        request: names the file.

    Raises:
        StorageError: the disk refuses.
    """
    write_atomic(home.requests / f"{request.name}.json", request.to_json())


def next_request(home: Home) -> InstallRequest | None:
    """The oldest request; files that are not valid requests are removed."""
    for path in sorted(home.requests.glob("*.json")) if home.requests.is_dir() else []:
        try:
            request = parse(InstallRequest, path.read_bytes())
            if request.name == path.stem:
                return request
        except FileNotFoundError:
            continue  # removed since the folder was listed
        except (WireError, OSError):
            pass
        _drop(path)
    return None


def drop_request(home: Home, name: str) -> None:
    """Remove a request.

    Args:
        home: HOME of the instrument.
        name: of the request; it may be absent.
    """
    _drop(home.requests / f"{name}.json")


def _drop(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
