"""Inhibit leases: files by which an acquisition keeps updates from being activated. An expired lease does not count."""

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
    """``inhibit/<name>.json``: who holds updates back, why, and until when.

    Attributes:
        reason: a text, of any program that takes a lease.
        reason_data: the same as data, where our own camera takes it.
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
    """Give a lease back; an absent one is fine.

    Args:
        folder: of the leases.
        name: of the lease.
    """
    with contextlib.suppress(FileNotFoundError):
        (folder / f"{name}.json").unlink()


def read_leases(folder: Path) -> tuple[list[Lease], list[str]]:
    """The leases of an instrument, expired ones among them, and the names of files that are no leases."""
    leases, wrong = [], []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            leases.append(parse(Lease, path.read_bytes()))
        except FileNotFoundError:
            continue  # given back just now
        except (WireError, OSError):
            wrong.append(path.name)
    return leases, wrong


def valid(leases: list[Lease], now: datetime) -> list[Lease]:
    """The leases that have not ended.

    Args:
        leases: all that were found.
        now: time.
    """
    return [lease for lease in leases if lease.expires_at > now]
