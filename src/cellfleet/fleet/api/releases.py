"""Artifact versions, signed and published."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import Field
from starlette.responses import Response

from cellfleet.fleet import releases
from cellfleet.fleet.api.dependencies import Ctx, Db, InPortions, Listing, Operator, OptionalReason, RowId, person
from cellfleet.fleet.rollout.desired_state import ref_of
from cellfleet.fleet.store.models import Release
from cellfleet.wire import Message
from cellfleet.wire.base import Time
from cellfleet.wire.rollout import ReleaseRequest
from cellfleet.wire.states import ReleaseRef

router = APIRouter(prefix="/api/v1/releases", tags=["releases"])
RELEASE: dict[str, Any] = {
    "release_id": 1,
    "kind": "model",
    "name": "neural-cells",
    "version": "1.1.0",
    "counter": 2,
    "target_path": "models/neural-cells/1.1.0/9f86d081884c.bundle.zip",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "length": 8700000,
}
REQUEST: dict[str, Any] = {
    "release": RELEASE,
    "metadata": {"2.models.json": "{...}", "2.snapshot.json": "{...}"},
    "decision": None,
    "override": {"reason": "Asked for by the lab in Leiden today; agreed by phone."},
    "notes": "Finer outlines at high confluence.",
}


class ReleaseAnswer(Message):
    """A release.

    Attributes:
        verdict: of its decision record; empty without one.
        override: ``{reason, by, at, against}`` when it was released against a failed gate or without a record.
        decision: payload of the decision record, when it is there and its signature is good; only of a single release.
        decision_problem: what is wrong with it.
    """

    release: ReleaseRef
    verdict: str = Field(examples=["passed"])
    approver: str = Field(default="", examples=["Dr Lin Mei-hua"])
    override: dict[str, Any] = Field(default={})
    decision_digest: str = ""
    decision: dict[str, Any] | None = None
    decision_problem: str = ""
    card: dict[str, Any] = Field(default={})
    notes: str = ""
    published_by: str = Field(examples=["anna"])
    published_at: Time
    withdrawn_at: Time | None = None


def answer(r: Release, decision: dict[str, Any] | None = None, problem: str = "") -> ReleaseAnswer:
    """A release as a message."""
    return ReleaseAnswer(
        release=ref_of(r),
        verdict=r.verdict,
        approver=r.approver,
        override=r.override,
        decision_digest=r.decision_digest,
        decision=decision,
        decision_problem=problem,
        card=r.card,
        notes=r.notes,
        published_by=r.published_by,
        published_at=r.published_at,
        withdrawn_at=r.withdrawn_at,
    )


@router.get("", summary="Releases", description="Newest first.", dependencies=[person("viewer")])
def listing(
    db: Db,
    portion: InPortions,
    name: Annotated[str, Query(max_length=128, description="Only of this model.", examples=["neural-cells"])] = "",
) -> Listing[ReleaseAnswer]:
    found = releases.listing(db, before=portion.after_id, limit=portion.limit, name=name)
    more = str(found[-1].id) if len(found) == portion.limit else ""
    return Listing[ReleaseAnswer](items=tuple(answer(r) for r in found), next=more)


@router.post(
    "",
    status_code=201,
    summary="Publish a release",
    description="After its artifact was uploaded. Refused (409) without a valid decision record (`decision-missing`, "
    "`decision-untrusted`, `gate-failed`), unless an approver overrides a missing or failed one with a reason; and when the "
    "signed metadata is invalid (`metadata-refused`). `release.release_id` of the request is ignored. The same "
    "release again answers 200 and changes nothing.",
    responses={200: {"description": "Already published.", "model": ReleaseAnswer}},
)
def publish(
    context: Ctx, db: Db, by: Operator, response: Response, body: Annotated[ReleaseRequest, Body(examples=[REQUEST])]
) -> ReleaseAnswer:
    release, is_new = releases.publish(db, context, by, body)
    if not is_new:
        response.status_code = 200
    return answer(release)


@router.get(
    "/{release_id}",
    summary="A release",
    description="With its decision record, verified for this answer.",
    dependencies=[person("viewer")],
)
def show(context: Ctx, db: Db, release_id: RowId) -> ReleaseAnswer:
    release = releases.find(db, release_id)
    decision, problem = releases.decision_of(db, context, release)
    return answer(release, decision, problem)


@router.post(
    "/{release_id}/withdraw",
    summary="Withdraw a release",
    description="New deployments cannot use it. Downloads of a running deployment continue; halt it to stop them.",
)
def withdraw(context: Ctx, db: Db, by: Operator, release_id: RowId, body: OptionalReason) -> ReleaseAnswer:
    return answer(releases.withdraw(db, context, by, release_id, body.reason))
