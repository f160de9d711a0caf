"""Inhibit leases: files with which an acquisition defers the activation of updates. An expired lease does not count."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import Literal

from cellfleet.errors import WireError
from cellfleet.ports import write_atomic
from cellfleet.wire.base import Message, Text, Time, parse
from cellfleet.wire.reason import Reason


class Lease(Message):
    """``inhibit/<name>.json``: who defers updates, why, and until when.

    Attributes:
        reason: text by the program that takes the lease.
        reason_data: the same as data, when the camera of this package takes the lease.
    """

    format_version: Literal[1] = 1
    holder: Text
    reason: Text
    reason_data: Reason | None = None
    expires_at: Time


def write_lease(folder: Path, name: str, lease: Lease) -> None:
    """Take or renew a lease.

    Args:
        folder: of the leases.
        name: of the lease.
        lease: holder, reason and end.
    """
    write_atomic(folder / f"{name}.json", lease.to_json())


def drop_lease(folder: Path, name: str) -> None:
    """Remove a lease; it may be absent.

    Args:
        folder: of the leases.
        name: of the lease.
    """
    with contextlib.suppress(FileNotFoundError):
        (folder / f"{name}.json").unlink()


def read_leases(folder: Path) -> tuple[list[Lease], list[str]]:
    """Read the leases of an instrument, including expired ones, and the names of files that are not valid leases."""
    leases, invalid = [], []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            leases.append(parse(Lease, path.read_bytes()))
        except FileNotFoundError:
            continue  # removed since the folder was listed
        except (WireError, OSError):
            invalid.append(path.name)
    return leases, invalid


def valid(leases: list[Lease], now: datetime) -> list[Lease]:
    """The leases that have not expired.

    Args:
        leases: of the instrument.
        now: time.
    """
    return [lease for lease in leases if lease.expires_at > now]
