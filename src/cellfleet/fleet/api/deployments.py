"""Deployments of a release to a group, in phases."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import Field
from sqlalchemy.orm import Session

from cellfleet.fleet.api.dependencies import (
    Approver,
    Ctx,
    Db,
    InPortions,
    Listing,
    Operator,
    OptionalReason,
    RowId,
    person,
)
from cellfleet.fleet.context import Context
from cellfleet.fleet.rollout import deployment_lists, deployments, reconcile
from cellfleet.fleet.rollout.deployment_lists import DeploymentView, MemberView
from cellfleet.fleet.rollout.desired_state import ref_of
from cellfleet.wire import Message
from cellfleet.wire.base import Time
from cellfleet.wire.reason import Reason, english, read_reason
from cellfleet.wire.rollout import DeploymentRequest, DeploymentState, MemberState
from cellfleet.wire.states import ReleaseRef

router = APIRouter(prefix="/api/v1/deployments", tags=["deployments"])
REQUEST: dict[str, Any] = {
    "release_id": 2,
    "group": "pilot",
    "phases": [{"count": 1, "soak_s": 3600}, {"percent": 100, "max_failures": 2, "approval": True}],
    "window": {"start": "22:00", "end": "04:00", "utc_offset_min": 60},
    "agent": {"probation_frames": 20},
    "reason": "finer outlines, asked for by three labs",
}


class DeploymentAnswer(Message):
    """A deployment.

    Attributes:
        phase: the phase that runs or waits for approval, from 1.
        counts: member state -> number.
        halted_reason, halted_data: why it was halted, as English text and as data.
        waits_for, waits_for_data: what has to happen next; only of a single deployment.
    """

    id: int = Field(examples=[7])
    state: DeploymentState
    release: ReleaseRef
    group: str = Field(examples=["pilot"])
    phase: int = Field(ge=1, examples=[1])
    phases: int = Field(ge=1, examples=[2])
    counts: dict[str, int] = Field(examples=[{"succeeded": 1, "waiting": 2}])
    halted_reason: str = Field(default="", examples=["XYZ-001 refused the release: ..."])
    halted_data: Reason | None = None
    waits_for: str = Field(default="", examples=["phase 1: 0 of 1 instruments have succeeded; 1 must"])
    waits_for_data: Reason | None = None
    request: DeploymentRequest
    created_by: str = Field(examples=["anna"])
    created_at: Time
    approved_by: str | None = None
    phase_since: Time
    soak_since: Time | None = None
    ended_at: Time | None = None


class MemberAnswer(Message):
    """A device in a deployment. ``update`` is its last UpdateReport; ``phase`` counts from 1, None: not offered yet."""

    device_id: str = Field(examples=["dev-0123456789ab"])
    name: str = Field(examples=["XYZ-001"])
    state: MemberState
    phase: int | None = Field(default=None, examples=[1])
    offered_at: Time | None = None
    ended_at: Time | None = None
    heard_at: Time | None = None
    reason: str = ""
    reason_data: Reason | None = None
    update: dict[str, Any] = Field(default={})


def answer(view: DeploymentView, waits_for: Reason | None = None) -> DeploymentAnswer:
    """A deployment as a message."""
    d = view.deployment
    request = DeploymentRequest.model_validate(d.request)
    return DeploymentAnswer(
        id=d.id,
        state=d.state,  # type: ignore[arg-type]
        release=ref_of(view.release),
        group=view.group,
        phase=d.phase + 1,
        phases=len(request.phases),
        counts=dict(view.counts),
        halted_reason=d.halted_reason,
        halted_data=read_reason(d.halted_reason, d.halted_data),
        waits_for=english(waits_for),
        waits_for_data=waits_for,
        request=request,
        created_by=d.created_by,
        created_at=d.created_at,
        approved_by=d.approved_by,
        phase_since=d.phase_since,
        soak_since=d.soak_since,
        ended_at=d.ended_at,
    )


def _one(db: Session, context: Context, deployment_id: int) -> DeploymentAnswer:
    d = deployments.find(db, deployment_id)
    waits_for = reconcile.waits_for(db, context, d)
    return answer(deployment_lists.view(db, deployment_id), waits_for)


def _member(m: MemberView) -> MemberAnswer:
    phase = m.member.phase
    return MemberAnswer(
        device_id=m.member.device_id,
        name=m.name,
        state=m.member.state,  # type: ignore[arg-type]
        phase=None if phase is None else phase + 1,
        offered_at=m.member.offered_at,
        ended_at=m.member.ended_at,
        heard_at=m.heard_at,
        reason=m.member.reason,
        reason_data=read_reason(m.member.reason, m.member.reason_data),
        update=m.member.update,
    )


@router.get("", summary="Deployments", description="Newest first.", dependencies=[person("viewer")])
def listing(
    db: Db,
    portion: InPortions,
    group: Annotated[str, Query(max_length=128, description="Only of this group.", examples=["pilot"])] = "",
    state: Annotated[str, Query(max_length=24, description="Only in this state.", examples=["running"])] = "",
) -> Listing[DeploymentAnswer]:
    found = deployment_lists.views(
        db, before=portion.after_id, limit=portion.limit, group=group, states=(state,) if state else ()
    )
    more = str(found[-1].deployment.id) if len(found) == portion.limit else ""
    return Listing[DeploymentAnswer](items=tuple(answer(v) for v in found), next=more)


@router.post(
    "",
    status_code=201,
    summary="Start a deployment",
    description="Refused (409) for a group without instruments (`empty-group`), for a group whose last deployment has not ended "
    "(`group-busy`), for a withdrawn release (`release-withdrawn`), and for an older release without `allow_downgrade`.",
)
def start(
    context: Ctx, db: Db, by: Operator, body: Annotated[DeploymentRequest, Body(examples=[REQUEST])]
) -> DeploymentAnswer:
    return _one(db, context, deployments.create(db, context, by, body).id)


@router.get(
    "/{deployment_id}",
    summary="A deployment",
    description="Its state, and what it waits for.",
    dependencies=[person("viewer")],
)
def show(context: Ctx, db: Db, deployment_id: RowId) -> DeploymentAnswer:
    return _one(db, context, deployment_id)


@router.get(
    "/{deployment_id}/members",
    summary="The devices of a deployment",
    description="Ordered by name; the release is offered in this order.",
    dependencies=[person("viewer")],
)
def members(db: Db, deployment_id: RowId, portion: InPortions) -> Listing[MemberAnswer]:
    deployments.find(db, deployment_id)
    found = deployment_lists.members(db, deployment_id, after=portion.after, limit=portion.limit)
    more = found[-1].name if len(found) == portion.limit else ""
    return Listing[MemberAnswer](items=tuple(_member(m) for m in found), next=more)


@router.post("/{deployment_id}/approve", summary="Approve the next phase", description="For approvers.")
def approve(context: Ctx, db: Db, by: Approver, deployment_id: RowId, body: OptionalReason) -> DeploymentAnswer:
    return _one(db, context, deployments.approve(db, context, by, deployment_id, body.reason).id)


@router.post(
    "/{deployment_id}/halt",
    summary="Halt a deployment",
    description="The release is not offered to more devices; devices that have not activated it keep their version.",
)
def halt(context: Ctx, db: Db, by: Operator, deployment_id: RowId, body: OptionalReason) -> DeploymentAnswer:
    return _one(db, context, deployments.halt(db, context, by, deployment_id, body.reason).id)


@router.post(
    "/{deployment_id}/resume",
    summary="Resume a halted deployment",
    description="Failures before now no longer count against a threshold.",
)
def resume(context: Ctx, db: Db, by: Operator, deployment_id: RowId, body: OptionalReason) -> DeploymentAnswer:
    return _one(db, context, deployments.resume(db, context, by, deployment_id, body.reason).id)


@router.post("/{deployment_id}/cancel", summary="Cancel a deployment", description="It cannot be resumed.")
def cancel(context: Ctx, db: Db, by: Operator, deployment_id: RowId, body: OptionalReason) -> DeploymentAnswer:
    return _one(db, context, deployments.cancel(db, context, by, deployment_id, body.reason).id)
