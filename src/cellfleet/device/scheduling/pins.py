"""Pins and outcomes of an experiment, beside its results: which slot segments it, and the outcome of every frame.

::

    HOME/results/<experiment>/pins.jsonl        Pin per line; the last one is valid
    HOME/results/<experiment>/outcomes.jsonl    FrameSegmented or FrameFailed per line, synced one by one

Readers skip a line that a power cut has cut off. An outcome belongs to the pin that it names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from cellfleet.canonical import canonical_bytes
from cellfleet.errors import WireError
from cellfleet.ports import write_atomic
from cellfleet.ports.disk import append_line, storage_error
from cellfleet.wire.base import Message, Sha256, Text, Time, parse
from cellfleet.wire.reason import StoredReason
from cellfleet.wire.telemetry_events import FrameFailed, FrameSegmented, parse_event

PINS, OUTCOMES = "pins.jsonl", "outcomes.jsonl"
Outcome = FrameSegmented | FrameFailed


class Pin(Message):
    """Which slot segments an experiment.

    Attributes:
        number: 1 for the first pin, 2 after a rollback.
        bundle_sha256: empty: no slot; the frames wait.
        run_digest: empty until its segmenter is ready.
        reason: why the experiment has a new pin.
    """

    format_version: Literal[1] = 1
    number: int = Field(ge=1)
    bundle_sha256: Sha256 | Literal[""] = ""
    variant: Text = ""
    run_digest: Text = ""
    release_id: int | None = None
    reason: StoredReason = None
    at: Time


def read_pins(folder: Path) -> list[Pin]:
    """Read the pins in the results folder of an experiment, in order."""
    pins = []
    for line in _lines(folder / PINS):
        try:
            pins.append(parse(Pin, line))
        except WireError:
            continue
    return pins


def write_pins(folder: Path, pins: list[Pin]) -> None:
    """Write all pins durably.

    Args:
        folder: results folder of the experiment.
        pins: in order.

    Raises:
        StorageError: the disk refuses; the pins are as they were.
    """
    write_atomic(folder / PINS, b"".join(canonical_bytes(p.model_dump(mode="json")) + b"\n" for p in pins))


def read_outcomes(folder: Path) -> list[Outcome]:
    """Read the outcomes in the results folder of an experiment, in order; the last one of a frame and pin is valid."""
    out: list[Outcome] = []
    for line in _lines(folder / OUTCOMES):
        try:
            event = parse_event(json.loads(line))
        except (ValueError, WireError):
            continue
        if isinstance(event, FrameSegmented | FrameFailed):
            out.append(event)
    return out


def append_outcome(folder: Path, outcome: Outcome) -> None:
    """Append an outcome; durable when the call returns.

    Args:
        folder: results folder of the experiment.
        outcome: of a frame.

    Raises:
        StorageError: the disk refuses.
    """
    append_line(folder / OUTCOMES, canonical_bytes(outcome.model_dump(mode="json")))


def _lines(path: Path) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as e:
        raise storage_error("read", path, e) from e
    yield from (line for line in data.split(b"\n") if line)
