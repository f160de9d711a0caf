"""Telemetry: events of frames, experiments and the device itself. Each event travels as an OTLP log record (``otlp``)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from cellfleet.errors import WireError
from cellfleet.wire.base import Key, Message, Sha256, Text, Time
from cellfleet.wire.plain_json import PlainDict
from cellfleet.wire.reason import ReasonData

Number = Annotated[float, Field()]


class Flag(Message):
    """A warning about the numbers of a frame, and its reason."""

    name: Key
    reason: Text


class ExperimentStarted(Message):
    """One time-lapse on one plate begins, ends, or gets a new pin after a rollback.

    Attributes:
        pinned_sha256: bundle that segments it from its first frame to its last; empty while the device has none.
        pin: 1 for the first pin, 2 after a rollback; rows of lower pins are superseded.
        reason, reason_data: why it has a new pin.
    """

    event: Literal["experiment"] = "experiment"
    experiment: Key
    plate: Text = ""
    plate_format: int = 96
    started_at: Time
    ended_at: Time | None = None
    pin: int = Field(default=1, ge=0)
    pinned_sha256: Sha256 | Literal[""] = ""
    release_id: int | None = None
    run_digest: Text = ""
    reason: Text = ""
    reason_data: ReasonData = None


class FrameTaken(Message):
    """A frame is on the device's disk, whole and synced.

    Attributes:
        frame: name within the experiment, unique there; also the name of its files.
        index: number in the experiment, from 0.
        time_s: since the experiment began.
        sha256: of the raw file.
        problem: why it cannot be read; the raw bytes are stored anyway.
    """

    event: Literal["taken"] = "taken"
    experiment: Key
    frame: Key
    index: int = Field(ge=0)
    well: Key
    field: int = Field(default=1, ge=1)
    time_s: float = Field(ge=0)
    taken_at: Time
    sha256: Sha256
    bytes: int = Field(ge=0)
    problem: Text = ""


class SegmentedRow(Message):
    """The numbers of a frame that has a mask, as a segmenter program answers them.

    Attributes:
        features: of ``cellfleet.monitor``: quality of the image and statistics of the output; name -> number.
        timings_ms: stage -> milliseconds, ``total`` among them.
        count: number of objects.
        per_mm2: objects per mm2; None: the pixel size is unknown.
    """

    event: Literal["segmented"] = "segmented"
    experiment: Key
    frame: Key
    run_digest: Sha256
    bundle_sha256: Sha256
    variant: Text
    engine_version: Text = ""
    count: int = Field(ge=0)
    confluence_percent: float = Field(ge=0, le=100)
    per_mm2: float | None = None
    features: dict[str, float | None] = Field(default={}, max_length=128)
    flags: tuple[Flag, ...] = Field(default=(), max_length=16)
    timings_ms: dict[str, float] = Field(default={}, max_length=32)
    mask_sha256: Sha256
    segmented_at: Time


class FrameSegmented(SegmentedRow):
    """A frame has a mask. Its identity is (experiment, frame, run digest).

    Attributes:
        pin: of the experiment when the frame was segmented.
        timings_ms: also has ``wait``, the time from the disk to the segmenter.
    """

    pin: int = Field(ge=1)
    release_id: int | None = None


class FrameFailed(Message):
    """A frame without a mask, and the reason; it is retried when the experiment is segmented again."""

    event: Literal["failed"] = "failed"
    experiment: Key
    frame: Key
    pin: int = Field(ge=1)
    reason: Text
    reason_data: ReasonData = None
    failed_at: Time


class AgentMoved(Message):
    """A transition of the agent, as in its journal."""

    event: Literal["agent"] = "agent"
    at: Time
    source: Text
    target: Text
    trigger: Text
    deployment_id: int | None = None
    release_id: int | None = None
    reason: Text = ""
    reason_data: ReasonData = None
    numbers: PlainDict = Field(default={}, max_length=64)


class Incident(Message):
    """A failure that was handled: a crash, a hang, a full disk, an unreachable server."""

    event: Literal["incident"] = "incident"
    at: Time
    kind: Key
    text: Text
    reason_data: ReasonData = None


Event = Annotated[
    ExperimentStarted | FrameTaken | FrameSegmented | FrameFailed | AgentMoved | Incident, Field(discriminator="event")
]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(data: Any) -> Event:
    """Read an event from plain JSON data.

    Raises:
        WireError: not a valid event; the text names the first invalid field.
    """
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise WireError(f"event: {where}: {first['msg']}", hint="both sides must speak the same version") from e
