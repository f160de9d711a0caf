"""Where the parts of an instrument meet: scheduler, event sink and server as the agent uses them, and what they exchange.

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
        release_id: of the server; None when it was installed from a folder.
        counter: release counter per ``kind`` and ``name``.
        variant: ``engine/precision`` that this instrument uses; empty: not chosen yet.
        run_digest: as its segmenter reports it when it is ready; empty: not known yet.
        numbers: of the self-test: plain JSON data.
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
        """Name and version, for texts."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class FrameOutcome:
    """What became of one frame.

    Attributes:
        slot: sha256 of the bundle that segmented it, or failed to; empty when the frame itself is to blame (it cannot
            be read).
        milliseconds: total of the segmenter for this frame, without waiting.
        memory_mb: of the segmenter after it; 0 when unknown.
        live: it was taken a short while ago (not back-filled, not segmented again).
        at: when it was done.
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
    """A segmenter that crashed or hung; it was replaced. ``slot`` is the sha256 of its bundle."""

    slot: str
    kind: FailureKind
    reason: Reason
    at: datetime


@dataclass(frozen=True)
class WorkSnapshot:
    """What happened since the poll before.

    Attributes:
        memory_mb: sha256 of the slot -> memory of its segmenter now.
        restarts: of segmenters, since the agent began.
        ready: a segmenter of the active slot is able to take frames.
        gap_s: longest time since the poll before for which no segmenter was able to take frames, while one was wanted.
        experiment: the one that is running (the camera's newest that has not ended), if any.
        pending: frames on the disk that have no mask yet.
        camera, segmenter: words of ``Health``.
        problems: what is wrong now.
        pids: SHA-256 of the slot and process id of every segmenter that runs.
    """

    frames: tuple[FrameOutcome, ...] = ()
    troubles: tuple[SegmenterFailure, ...] = ()
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
class GoldenResult:
    """Golden frames of one bundle, segmented by the model under test; as in the segmenter protocol."""

    of: str
    ap50: float
    agreement: float
    least_ap50: float
    least_agreement: float
    worst_ms: float
    problem: str = ""


@dataclass(frozen=True)
class SelfTested:
    """What a segmenter reports of golden frames.

    Attributes:
        variant: that was run.
        results: in the order of ``golden_of``.
        problem: why there are no results; None when there are.
    """

    variant: str
    run_digest: str
    memory_mb: float
    results: tuple[GoldenResult, ...]
    problem: Reason | None = None


class Scheduler(Protocol):
    """Frames of the camera to results on the disk. ``poll``, ``switch``, ``repin`` are called from the agent's main thread.

    ``warm`` and ``selftest`` take long and are called from the agent's worker thread, while ``poll`` goes on.
    """

    def poll(self, now: datetime) -> WorkSnapshot:
        """Look around once: new frames and experiments, pins, answers of segmenters. Never waits for a segmenter."""
        ...

    def warm(self, slot: Slot) -> WarmSegmenter:
        """Start a segmenter for a slot beside the others, and wait until it is ready; one that is ready is fine.

        Raises:
            DeviceError: it refuses, crashes or does not become ready in time.
        """
        ...

    def selftest(self, slot: Slot, golden_of: Sequence[Path], timeout_s: float) -> SelfTested:
        """Segment golden frames with a separate segmenter of a slot and variant, and end it.

        A segmenter that refuses, crashes or hangs is a ``problem``, not an error.

        Args:
            slot: the slot under test, with its variant.
            golden_of: bundles whose golden frames are segmented.
            timeout_s: longest wait for its start, and again for its answer.

        Returns:
            One result per bundle, or the problem.
        """
        ...

    def switch(self, slot: Slot | None) -> None:
        """Experiments that are not pinned yet use this slot; those that are keep theirs. None: there is no slot."""
        ...

    def repin(self, bad: Slot, good: Slot | None, since: datetime, reason: Reason) -> None:
        """Pin every experiment of a bad slot anew and segment it again, whole.

        Durable when it returns; the same call again (after a power cut) changes nothing.

        Args:
            bad: the slot whose experiments are pinned anew: those that it segments, or segmented since ``since``.
            good: the slot that takes them; None: the experiments wait until a slot is active.
            since: activation of the bad slot.
            reason: recorded in the new pin.
        """
        ...

    def cool(self, slot: Slot) -> None:
        """End a segmenter that ``warm`` started and that no experiment needs."""
        ...

    def pinned(self) -> frozenset[str]:
        """SHA-256 of the bundles that experiments which have not ended are pinned to: their slots must stay."""
        ...

    def counters(self) -> Counters:
        """Frames since provisioning, from what lies on the disk."""
        ...

    def close(self) -> None:
        """End all segmenters."""
        ...


class EventSink(Protocol):
    """Takes events durably; the server gets them when it can."""

    def put(self, event: Event) -> None:
        """Keep an event; durable when it returns."""
        ...


class Server(Protocol):
    """The way to the fleet server, for telemetry and uploads; safe to be used by several threads."""

    @property
    def base_url(self) -> str:
        """Address without a slash at its end."""
        ...

    @property
    def device_id(self) -> str:
        """Id of this instrument."""
        ...

    @property
    def peer(self) -> Peer:
        """What the server announced: who sends messages leaves out the rest, and notes every answer here."""
        ...

    def headers(self) -> dict[str, str]:
        """``Authorization`` with a token that is valid now, and what this program announces.

        Raises:
            NetworkError: the server cannot be asked for one now.
            DeviceError: the server refuses this instrument (pending, rejected, revoked).
        """
        ...

    def forget_token(self) -> None:
        """The server answered 401: the next ``headers()`` asks for another token."""
        ...
