"""Lineage of masks and runs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from cellfleet.fleet import lineage
from cellfleet.fleet.api.dependencies import Ctx, Db, DeviceRef, DigestPath, KeyPath, person
from cellfleet.lineage.chain import Chain
from cellfleet.wire import Message

router = APIRouter(prefix="/api/v1/lineage", tags=["lineage"])


class LinkAnswer(Message):
    """One step of the chain. ``problem``: why it cannot be shown or trusted; empty when it is valid."""

    what: str = Field(examples=["release"])
    digest: str = ""
    facts: dict[str, Any] = Field(examples=[{"name": "neural-cells 1.1.0", "published_by": "anna"}])
    problem: str = ""


class ChainAnswer(Message):
    """From a mask or a run back to its data. ``complete``: every link is present and trusted."""

    complete: bool
    links: tuple[LinkAnswer, ...]


def _answer(found: Chain) -> ChainAnswer:
    links = tuple(LinkAnswer(what=x.what, digest=x.digest, facts=dict(x.facts), problem=x.problem) for x in found.links)
    return ChainAnswer(complete=found.complete, links=links)


@router.get(
    "/run/{digest}",
    summary="Lineage of a run",
    description="All masks of a run have the same chain.",
    dependencies=[person("viewer")],
)
def of_run(context: Ctx, db: Db, digest: DigestPath) -> ChainAnswer:
    return _answer(lineage.of_run(db, context, digest))


@router.get(
    "/{device}/{experiment}/{frame}",
    summary="Lineage of a mask",
    description="Run, release with approver and override, decision record, training, data set, commit.",
    dependencies=[person("viewer")],
)
def of_mask(context: Ctx, db: Db, device: DeviceRef, experiment: KeyPath, frame: KeyPath) -> ChainAnswer:
    return _answer(lineage.of_mask(db, context, device, experiment, frame))
