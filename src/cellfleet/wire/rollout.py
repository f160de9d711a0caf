"""Releases and deployments: requests of operators and API clients to the fleet server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cellfleet.wire.base import Key, Message, Text, Time
from cellfleet.wire.plain_json import PlainDict
from cellfleet.wire.reason import Reason
from cellfleet.wire.states import ArtifactRef, MaintenanceWindow, ReleaseRef

DeploymentState = Literal["awaiting-approval", "running", "halted", "succeeded", "cancelled"]
MemberState = Literal[
    "waiting", "offered", "updating", "deferred", "succeeded", "refused", "failed", "rolled-back", "silent"
]
"""Of a device in a deployment."""
FAILURES: tuple[MemberState, ...] = ("refused", "failed", "rolled-back", "silent")
"""Member states that count against the thresholds of a phase."""
ENDED: tuple[MemberState, ...] = ("succeeded", *FAILURES)
LIVE: tuple[DeploymentState, ...] = ("awaiting-approval", "running", "halted")
"""States of a deployment that has not ended; a group has at most one such deployment."""


class Override(Message):
    """The reason for releasing without a gate or against a failed one. Shown wherever the release is shown."""

    reason: str = Field(
        min_length=10,
        max_length=2000,
        pattern=r"^[^\x00]*$",
        examples=["the held-out wells were overexposed; checked by hand"],
    )


class ReleaseRequest(Message):
    """POST /api/v1/releases, after the artifact was uploaded.

    Attributes:
        release: the artifact; programs without the feature ``artifacts`` send a ``release_id``, which is ignored.
        metadata: new files of the image repository, ``<version>.<role>.json`` -> text: delegated targets and snapshot.
        decision: decision record (DSSE envelope); None only with an override.
        records: lineage records, kind -> list of records: ``training``, ``data-set``, ``optimization``.
        card: plain JSON facts of the bundle for display: manifest without files, numbers.
    """

    release: ReleaseRef | ArtifactRef
    metadata: dict[str, str] = Field(
        min_length=1, max_length=16, examples=[{"5.models.json": "{...}", "5.snapshot.json": "{...}"}]
    )
    decision: PlainDict | None = None
    records: dict[Literal["training", "data-set", "optimization"], list[PlainDict]] = Field(default={})
    card: PlainDict = Field(default={})
    override: Override | None = None
    notes: Text = ""


class Phase(Message):
    """A part of a deployment; the last phase takes all remaining devices.

    Attributes:
        count, percent: how many devices of the group are offered the release when this phase ends up complete (of all,
            not on top of the phase before); exactly one is given.
        max_failures: failures that are always tolerated in this phase.
        max_failure_percent: more failures are tolerated up to this share of the ended devices, once ``min_ended`` have ended;
            None: only ``max_failures`` counts.
        min_ended: minimum number of ended devices before a percentage is judged.
        min_success_percent: of the phase's devices that must have succeeded before the next phase; 100: all but the
            tolerated failures.
        soak_s: time without a failure that must then pass before the next phase.
        silent_after_s: a device that was offered the release and sends no request for this time counts as a failure.
        approval: an approver must approve before this phase begins.
    """

    count: int | None = Field(default=None, ge=1)
    percent: float | None = Field(default=None, gt=0, le=100, examples=[25])
    max_failures: int = Field(default=0, ge=0)
    max_failure_percent: float | None = Field(default=None, ge=0, le=100)
    min_ended: int = Field(default=1, ge=1)
    min_success_percent: float = Field(default=100, ge=0, le=100)
    soak_s: float = Field(default=0, ge=0, le=30 * 86400)
    silent_after_s: float = Field(default=3600, gt=0, le=30 * 86400)
    approval: bool = False

    @model_validator(mode="after")
    def _one_size(self) -> Phase:
        if (self.count is None) == (self.percent is None):
            raise ValueError("a phase has either a count or a percent")
        return self


class DeploymentRequest(Message):
    """POST /api/v1/deployments

    Attributes:
        agent: settings of section [agent] for the devices of this deployment.
        allow_downgrade: the release counter may be lower; needs a signed allowance in the image repository.
    """

    release_id: int = Field(ge=1, examples=[2])
    group: Key = Field(examples=["pilot"])
    phases: Annotated[tuple[Phase, ...], Field(min_length=1, max_length=10)] = (Phase(percent=100),)
    window: MaintenanceWindow | None = None
    needs_approval: bool = False
    agent: dict[str, float | int | str | bool] = Field(default={}, max_length=32)
    allow_downgrade: bool = False
    reason: Text = ""


class Member(Message):
    """A device in a deployment, as the rollout rules see it.

    Attributes:
        phase: index of the phase in which it was offered the release; None: not yet.
        offered_at, ended_at: times; heard_at: of the last request of the device.
    """

    device_id: str
    name: str = ""
    state: MemberState = "waiting"
    phase: int | None = None
    offered_at: Time | None = None
    ended_at: Time | None = None
    heard_at: Time | None = None
    reason: Reason | None = None
