"""The agent's journal: its state and what it must know of the update, written before each action begins."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from cellfleet.device.system.home import Home
from cellfleet.device.system.versioned_file import VersionedFile, WriteFn
from cellfleet.ports import write_atomic
from cellfleet.wire.base import Message, Sha256, Text, Time
from cellfleet.wire.states import MaintenanceWindow, Outcome, ReleaseRef, UpdateState


class Tally(Message):
    """What was seen of a slot in probation.

    Attributes:
        times_ms: of the frames that it drew, the latest 200.
        base_ms: median time of the previous slot's live frames before the activation; None: unknown.
        memory_mb: the greatest that was seen.
        pending: frames that waited for a mask when it was looked last.
    """

    drawn: int = 0
    failed: int = 0
    crashes: int = 0
    hangs: int = 0
    times_ms: tuple[float, ...] = ()
    base_ms: float | None = None
    memory_mb: float = 0.0
    last_trouble: Text = ""


class Update(Message):
    """One update, from the desired state's arrival to its end; it stays after its end, to be reported.

    Attributes:
        folder: offline folder it comes from; empty: the server.
        request: name of the request by which a person asked for it; empty: the desired state.
        previous_sha256: active slot before the activation; empty: there was none.
        settled: its end is final for this deployment and release.
        attempts: failures that count; after the last one the update has failed.
        waits: times in a row that the server could not be asked; they do not count, but waits grow with them.
        not_before: an update that could not be fetched is tried again after this time.
    """

    generation: int
    deployment_id: int | None
    release: ReleaseRef
    window: MaintenanceWindow | None = None
    agent: dict[str, float | int | str | bool] = Field(default={})
    folder: str = ""
    request: Text = ""
    outcome: Outcome = "running"
    reason: Text = ""
    numbers: dict[str, Any] = Field(default={})
    started_at: Time
    changed_at: Time
    attempts: int = 0
    waits: int = 0
    not_before: Time | None = None
    settled: bool = False
    bytes_downloaded: int = 0
    artifact: str = ""
    variant: str = ""
    previous_sha256: Sha256 | str = ""
    activated_at: Time | None = None
    bad_at: Time | None = None
    update_s: float | None = None
    activation_pause_s: float | None = None
    recovery_s: float | None = None
    tally: Tally = Tally()


class Entry(Message):
    """One page of the journal.

    Attributes:
        entered_at: when the state was entered.
        source, trigger: the state before and the event that led here; empty on a page that repeats its state.
        update: the running or the latest one.
    """

    state: UpdateState = "idle"
    entered_at: Time | None = None
    source: Text = ""
    trigger: Text = ""
    update: Update | None = None
    number: int = Field(default=0, ge=0)


class Journal:
    """Reads and writes the journal of an instrument.

    Attributes:
        damaged: names of files that were passed over when it was opened.
    """

    def __init__(self, home: Home, write: WriteFn = write_atomic) -> None:
        self._file = VersionedFile(home.state, "journal", write)
        newest = self._file.read()
        self.damaged = newest.damaged
        self.entry = _entry(newest.content, newest.number)

    def write(self, entry: Entry) -> None:
        """Write a page; durable when the call returns.

        Raises:
            StorageError: the disk refuses; the page before still counts.
        """
        number = self._file.write(entry.model_dump(mode="json", exclude={"number"}))
        self.entry = entry.model_copy(update={"number": number})


def _entry(content: Any, number: int) -> Entry:
    if content is None:
        return Entry()
    try:
        return Entry.model_validate({**content, "number": number})
    except (ValidationError, TypeError):
        return Entry(number=number)  # of another version: nothing was begun that this program knows
