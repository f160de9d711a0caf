"""Requests of other programs to the running agent: files in ``state/requests``, taken in the order of their names."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path

from cellfleet.device.system.home import Home
from cellfleet.errors import WireError
from cellfleet.ports import write_atomic
from cellfleet.wire.base import Key, Message, Text, Time, parse
from cellfleet.wire.states import ReleaseRef


class InstallRequest(Message):
    """Install what an offline folder holds for this instrument.

    Attributes:
        name: of the request; in the journal's update and in the status, so that whoever asked finds the answer.
        folder: absolute.
    """

    name: Key
    folder: Text
    release: ReleaseRef
    asked_at: Time


def request_name(now: datetime) -> str:
    """A name that sorts by time."""
    return f"install-{now:%Y%m%dT%H%M%S.%f}"


def put_request(home: Home, request: InstallRequest) -> None:
    """Leave a request for the agent."""
    write_atomic(home.requests / f"{request.name}.json", request.to_json())


def next_request(home: Home) -> InstallRequest | None:
    """The oldest request; files that are none are removed."""
    for path in sorted(home.requests.glob("*.json")) if home.requests.is_dir() else []:
        try:
            request = parse(InstallRequest, path.read_bytes())
            if request.name == path.stem:
                return request
        except FileNotFoundError:
            continue  # withdrawn just now
        except (WireError, OSError):
            pass
        _drop(path)
    return None


def drop_request(home: Home, name: str) -> None:
    """The request was taken, or whoever asked gave up; absent is fine."""
    _drop(home.requests / f"{name}.json")


def _drop(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
