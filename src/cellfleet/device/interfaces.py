"""Interfaces between the parts of an instrument: scheduler, event sink and server as the agent uses them, and their data.

``scheduling.scheduler.FrameScheduler`` is the Scheduler of an instrument, ``server.spool.Spool`` its EventSink,
``server.client.ServerClient`` its Server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from cellfleet.wire.features import Peer
from cellfleet.wire.reason import Reason
from cellfleet.wire.states import Counters
from cellfleet.wire.telemetry_events import Event

FrameResult = Literal["segmented", "failed"]
FailureKind = Literal["crash", "hang"]


@dataclass(frozen=True)
class Slot:
    """One installed artifact.

    Attributes:
        folder: ``slots/<sha256, 12>``; the artifact is ``bundle`` in it.
        release_id: number on the server; None when it was installed from a folder.
        counter: release counter of its ``kind`` and ``name``.
        variant: ``engine/precision`` that this instrument uses; empty: not chosen yet.
        run_digest: as its segmenter reported when it was ready; empty: not known yet.
        numbers: of the self-test; plain JSON data.
    """

    folder: Path
    sha256: str
    name: str
    version: str
    counter: int
    kind: str = "model"
    release_id: int | None = None
    deployment_id: int | None = None
    variant: str = ""
    run_digest: str = ""
    installed_at: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bundle(self) -> Path:
        """The artifact's file."""
        return self.folder / "artifact.zip"

    @property
    def label(self) -> str:
        """Name and version, for display."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class FrameOutcome:
    """Outcome of a frame.

    Attributes:
        slot: SHA-256 of the bundle that segmented it or failed to; empty when the frame itself is at fault (it cannot be
            read).
        milliseconds: time of the segmenter for this frame, without waiting.
        memory_mb: of the segmenter after the frame; 0: unknown.
        live: the frame was taken recently (not back-filled, not segmented again).
        at: time of the outcome.
    """

    experiment: str
    frame: str
    slot: str
    result: FrameResult
    milliseconds: float
    memory_mb: float
    live: bool
    at: datetime
    reason: Reason | None = None


@dataclass(frozen=True)
class SegmenterFailure:
    """A segmenter that crashed or hung and was replaced. ``slot`` is the SHA-256 of its bundle."""

    slot: str
    kind: FailureKind
    reason: Reason
    at: datetime


@dataclass(frozen=True)
class WorkSnapshot:
    """State of the scheduler, and changes since the previous poll.

    Attributes:
        failures: of segmenters.
        memory_mb: SHA-256 of the slot -> memory of its segmenter now.
        restarts: of segmenters, since the agent started.
        ready: the segmenter of the active slot accepts frames.
        gap_s: longest time since the previous poll for which there was an active slot but no segmenter to accept frames.
        experiment: the running experiment (the newest of the camera, while it has not ended); None: there is none.
        pending: frames on the disk without an outcome.
        camera, segmenter: states as of ``Health``.
        problems: current ones.
        pids: SHA-256 of the slot and process id of every running segmenter.
    """

    frames: tuple[FrameOutcome, ...] = ()
    failures: tuple[SegmenterFailure, ...] = ()
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    gap_s: float = 0.0
    experiment: str | None = None
    pending: int = 0
    camera: Literal["running", "waiting", "held", "stopped", "failing"] = "stopped"
    segmenter: Literal["running", "starting", "stopped", "failing"] = "stopped"
    problems: tuple[Reason, ...] = ()
    pids: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class WarmSegmenter:
    """A segmenter that is ready for a slot."""

    variant: str
    run_digest: str
    memory_mb: float


@dataclass(frozen=True)
class GoldenOutcome:
    """Scores of the model under test on the golden frames of a bundle; as in the segmenter protocol."""

    of: str
    ap50: float
    agreement: float
    least_ap50: float
    least_agreement: float
    worst_ms: float
    problem: str = ""


@dataclass(frozen=True)
class SelfTested:
    """Result of a self-test.

    Attributes:
        variant: the variant under test.
        results: in the order of ``golden_of``.
        problem: why there are no results; None: there are results.
    """

    variant: str
    run_digest: str
    memory_mb: float
    results: tuple[GoldenOutcome, ...]
    problem: Reason | None = None


class Scheduler(Protocol):
    """Turns frames of the camera into results on the disk.

    The agent calls ``poll``, ``switch`` and ``repin`` from its main thread, and the slow ``warm`` and ``selftest`` from its
    worker thread, meanwhile.
    """

    def poll(self, now: datetime) -> WorkSnapshot:
        """Process new frames and experiments, pins, and answers of segmenters. Never waits for a segmenter.

        Args:
            now: time.
        """
        ...

    def warm(self, slot: Slot) -> WarmSegmenter:
        """Start a segmenter for a slot beside the others, unless there is one, and wait until it is ready.

        Raises:
            DeviceError: the segmenter refuses, crashes or does not become ready in time.
        """
        ...

    def selftest(self, slot: Slot, golden_of: Sequence[Path], timeout_s: float) -> SelfTested:
        """Segment golden frames with a separate segmenter, which is started and ended here.

        Args:
            slot: with the variant to test.
            golden_of: bundles whose golden frames are segmented.
            timeout_s: longest wait for the start, and for the answer.

        Returns:
            The scores. A segmenter that refuses, crashes or hangs is a ``problem``, not an error.
        """
        ...

    def switch(self, slot: Slot | None) -> None:
        """Use this slot for experiments that are not pinned yet; pinned ones keep theirs. None: there is no slot."""
        ...

    def repin(self, bad: Slot, good: Slot | None, since: datetime, reason: Reason) -> None:
        """Pin every experiment of a bad slot to a good one and segment all its frames again.

        Durable when it returns; repeating the call (after a power cut) changes nothing.

        Args:
            bad: the slot to replace.
            good: its replacement; None: the frames wait.
            since: experiments that ``bad`` has segmented since this time count, too.
            reason: for the new pins.
        """
        ...

    def stop_unneeded(self, slot: Slot) -> None:
        """End a segmenter that ``warm`` started, unless an experiment needs it."""
        ...

    def pinned(self) -> frozenset[str]:
        """SHA-256 of the bundles that unfinished experiments are pinned to: their slots must stay."""
        ...

    def counters(self) -> Counters:
        """Frames since provisioning, counted on the disk."""
        ...

    def close(self) -> None:
        """End all segmenters."""
        ...


class EventSink(Protocol):
    """Stores events durably and sends them to the server when possible."""

    def put(self, event: Event) -> None:
        """Store an event; durable when the call returns."""
        ...


class Server(Protocol):
    """Connection to the fleet server, for telemetry and uploads; thread-safe."""

    @property
    def base_url(self) -> str:
        """Address without a trailing slash."""
        ...

    @property
    def device_id(self) -> str:
        """Id of this instrument."""
        ...

    @property
    def peer(self) -> Peer:
        """Features that the server announced; senders leave out all others, and record each answer's announcement here."""
        ...

    def headers(self) -> dict[str, str]:
        """``Authorization`` with a valid token, and the features that this program announces.

        Raises:
            NetworkError: a token is needed and the server cannot be reached now.
            DeviceError: the server refuses this instrument (pending, rejected, revoked).
        """
        ...

    def forget_token(self) -> None:
        """Discard the token after a 401 answer: the next ``headers()`` requests another one."""
        ...
