"""The agent's journal: its state and the facts of the update, written before each action starts."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, Field, ValidationError

from cellfleet.device.system.home import Home
from cellfleet.device.system.versioned_file import VersionedFile, WriteFn
from cellfleet.ports import write_atomic
from cellfleet.wire.base import Message, Sha256, Text, Time
from cellfleet.wire.reason import StoredReason
from cellfleet.wire.states import ArtifactRef, MaintenanceWindow, Outcome, ReleaseRef, UpdateState


class Tally(Message):
    """Counts of a slot in probation.

    Attributes:
        segmented: frames; ``drawn`` in the journals of earlier versions.
        times_ms: of the segmented frames, the latest 200.
        base_ms: median time of the previous slot's live frames before the activation; None: unknown.
        memory_mb: maximum so far.
        last_trouble: newest reason of a failed frame, a crash or a hang.
    """

    segmented: int = Field(default=0, validation_alias=AliasChoices("segmented", "drawn"))
    failed: int = 0
    crashes: int = 0
    hangs: int = 0
    times_ms: tuple[float, ...] = ()
    base_ms: float | None = None
    memory_mb: float = 0.0
    last_trouble: StoredReason = None


class Update(Message):
    """One update, from the arrival of the desired state to its end. It is kept after its end, to be reported.

    Attributes:
        release: an ArtifactRef when it comes from a folder; journals of older programs have a meaningless ``release_id``
            there.
        folder: offline folder of the artifact; empty: the server.
        request: name of the operator's install request; empty: the desired state asks for the update.
        previous_sha256: active slot before the activation; empty: there was none.
        settled: the outcome is final for this deployment and release.
        attempts: failures that count towards ``MAX_ATTEMPTS``.
        waits: consecutive times that the server could not be reached; they do not count, but the waits grow.
        not_before: earliest time of the next attempt.
    """

    generation: int
    deployment_id: int | None
    release: ReleaseRef | ArtifactRef
    window: MaintenanceWindow | None = None
    agent: dict[str, float | int | str | bool] = Field(default={})
    folder: str = ""
    request: Text = ""
    outcome: Outcome = "running"
    reason: StoredReason = None
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

    @property
    def release_id(self) -> int | None:
        """The server's number of the release; None when it comes from a folder."""
        return self.release.release_id if isinstance(self.release, ReleaseRef) and not self.folder else None

    tally: Tally = Tally()


class Entry(Message):
    """One page of the journal.

    Attributes:
        entered_at: when the state was entered.
        source, trigger: the state before and the event that led here; empty on a page that repeats its state.
        update: the running or the latest update.
        number: of the page.
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
        entry: the newest page.
        damaged: names of damaged files that were skipped when the journal was opened.
    """

    def __init__(self, home: Home, write: WriteFn = write_atomic) -> None:
        self._file = VersionedFile(home.state, "journal", write)
        newest = self._file.read()
        self.damaged = newest.damaged
        self.entry = _entry(newest.content, newest.number)

    def write(self, entry: Entry) -> None:
        """Write a page; durable when the call returns.

        Raises:
            StorageError: the disk refuses; the page before stays valid.
        """
        number = self._file.write(entry.model_dump(mode="json", exclude={"number"}))
        self.entry = entry.model_copy(update={"number": number})


def _entry(content: Any, number: int) -> Entry:
    if content is None:
        return Entry()
    try:
        return Entry.model_validate({**content, "number": number})
    except (ValidationError, TypeError):
        return Entry(number=number)  # of another version: it describes nothing that this version can resume
