"""Desired and reported state: what the server wants on a device, and what the device reports to have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cellfleet.wire.base import DeviceId, Key, Message, SemVer, Sha256, Text, Time
from cellfleet.wire.enrol import DeviceFacts
from cellfleet.wire.features import Since
from cellfleet.wire.plain_json import PlainDict
from cellfleet.wire.reason import Reason, ReasonData

UpdateState = Literal[
    "idle",
    "checking",
    "downloading",
    "installing",
    "self-testing",
    "deferred",
    "activating",
    "probation",
    "committing",
    "rolling-back",
]
"""States of the agent; the table is in ``cellfleet.device.update.state_machine``."""

Outcome = Literal["running", "deferred", "succeeded", "refused", "failed", "rolled-back"]
"""Of an update: ``refused`` before activation (trust, self-test), ``failed`` for a reason outside the artifact that did not
go away (disk, download), ``rolled-back`` after activation."""

Count = Annotated[int, Field(ge=0, le=2**53)]


class ArtifactRef(Message):
    """An artifact as the signed repositories name it.

    Attributes:
        target_path: path in both TUF repositories, ``models/<name>/<version>/<sha256, 12>.bundle.zip``.
        counter: monotonic per ``kind`` and ``name``; a device never installs a lower one without a signed allowance.
        length: bytes.
    """

    kind: Literal["model", "software"] = "model"
    name: Key = Field(examples=["my-cells"])
    version: SemVer
    counter: int = Field(ge=1, examples=[5])
    target_path: str = Field(
        pattern=r"^(models|software)(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){2,4}$",
        max_length=512,
        examples=["models/my-cells/1.2.0/2b77b9af54c8.bundle.zip"],
    )
    sha256: Sha256
    length: int = Field(ge=1, examples=[8800000])

    @property
    def artifact(self) -> ArtifactRef:
        """The artifact alone, without what a subclass adds: two descriptions of one artifact are compared by it."""
        return ArtifactRef(**{name: getattr(self, name) for name in ArtifactRef.model_fields})


class ReleaseRef(ArtifactRef):
    """A release of the fleet server.

    Attributes:
        release_id: number on the server.
    """

    release_id: int = Field(ge=1, examples=[2])


class MaintenanceWindow(Message):
    """When an update may be activated.

    Attributes:
        days: 0 Monday ... 6 Sunday, on which the window begins.
        start, end: ``HH:MM`` at the given offset from UTC; an end before the start is on the next day.
    """

    days: tuple[Annotated[int, Field(ge=0, le=6)], ...] = Field(
        default=(0, 1, 2, 3, 4, 5, 6), min_length=1, max_length=7
    )
    start: str = Field(default="00:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    end: str = Field(default="23:59", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    utc_offset_min: int = Field(default=0, ge=-840, le=840)


class DesiredState(Message):
    """GET /api/v1/device/desired; the ETag changes with the content, ``If-None-Match`` gives 304.

    Attributes:
        generation: grows with every change; a device ignores a lower one.
        deployment_id, release: what should be active; None: no update is requested.
        agent: settings of section [agent] that hold for this update instead of the device's own.
        poll_s: when to ask next.
    """

    protocol: Literal[1] = 1
    device_id: DeviceId
    generation: int = Field(ge=0, examples=[3])
    deployment_id: int | None = Field(default=None, examples=[7])
    release: ReleaseRef | None = None
    window: MaintenanceWindow | None = None
    agent: dict[str, float | int | str | bool] = Field(default={}, max_length=32)
    poll_s: float = Field(default=60, gt=0)


class SlotReport(Message):
    """One installed artifact."""

    release_id: int | None = Field(examples=[2])
    name: Key = Field(examples=["my-cells"])
    version: SemVer
    counter: int = Field(ge=0, examples=[5])
    sha256: Sha256
    variant: Text = ""
    run_digest: Text = ""
    since: Time


class UpdateReport(Message):
    """How the latest update stands.

    Attributes:
        reason: the English text; always there for refused, failed, rolled-back and deferred.
        reason_data: what the text is made of; None: of an agent of an earlier version.
        numbers: plain JSON data: self-test results by variant, probation numbers and limits.
        bytes_downloaded: over the network; a resumed download counts what was fetched.
        update_s: from the desired state's arrival to its activation.
        activation_pause_s: longest time for which no segmenter could take frames, around the activation.
        recovery_s: from a bad activation to the first frame that the previous slot segments again.
    """

    deployment_id: int | None = Field(examples=[7])
    release_id: int | None = Field(examples=[2])
    state: UpdateState
    outcome: Outcome
    reason: Text = ""
    reason_data: ReasonData = None
    numbers: PlainDict = Field(default={}, max_length=64)
    started_at: Time
    changed_at: Time
    bytes_downloaded: Count = 0
    update_s: float | None = Field(default=None, examples=[12.4])
    activation_pause_s: float | None = Field(default=None, examples=[0.0])
    recovery_s: float | None = Field(default=None, examples=[19.1])


class Counters(Message):
    """Frames since the device was provisioned, counted from what lies on its disk.

    Attributes:
        skipped: nothing is skipped; taken, and never sent, because agents of earlier versions send 0.
    """

    taken: Count = 0
    stored: Count = 0
    segmented: Count = 0
    failed: Count = 0
    skipped: Count = Field(default=0, exclude=True)


class Health(Message):
    """How a device is.

    Attributes:
        camera: ``held``: an operator stopped it; ``waiting``: it cannot take frames now, for a reason in ``problems``.
        problems: what is wrong now, as English texts; empty when all is well.
        problems_data: what the texts are made of, in the same order; empty: of an agent of an earlier version.
    """

    disk_free_mb: float = Field(default=0, ge=0)
    queue_frames: Count = 0
    spool_items: Count = 0
    spool_mb: float = Field(default=0, ge=0)
    segmenter_memory_mb: float = Field(default=0, ge=0)
    segmenter_restarts: Count = 0
    camera: Literal["running", "waiting", "held", "stopped", "failing"] = "stopped"
    segmenter: Literal["running", "starting", "stopped", "failing"] = "stopped"
    clock_offset_s: float = 0.0
    problems: tuple[Text, ...] = Field(default=(), max_length=32)
    problems_data: Annotated[tuple[Reason, ...], Since("reasons")] = Field(default=(), max_length=32)


class ReportedState(Message):
    """PUT /api/v1/device/reported

    Attributes:
        sequence: grows with every report of a device, over restarts too. A lower one from another ``boot_id`` means
            that two machines use one key.
        generation: of the desired state that the device has seen.
        experiment: the running experiment.
    """

    protocol: Literal[1] = 1
    device_id: DeviceId
    sequence: Count = Field(examples=[412])
    boot_id: Key = Field(examples=["b-4f1c"])
    at: Time
    generation: int = Field(ge=0, examples=[3])
    state: UpdateState
    active: SlotReport | None = None
    previous: SlotReport | None = None
    candidate: SlotReport | None = None
    update: UpdateReport | None = None
    experiment: Key | None = Field(default=None, examples=["plate-7"])
    counters: Counters = Counters()
    health: Health = Health()
    facts: DeviceFacts
