"""Releases: the list, and one with its numbers, decision record, override and lineage."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from cellfleet.fleet import lineage, releases
from cellfleet.fleet.pages.page_request import Form, PageRequest, PageRoute, needs, sliced, viewer
from cellfleet.fleet.pages.queries import release_queries
from cellfleet.fleet.refusals import bad_request
from cellfleet.fleet.rollout import deployment_lists
from cellfleet.wire.reason import because

router = APIRouter(route_class=PageRoute, include_in_schema=False)
PER_PAGE = 30


@router.get("/releases")
def listing(asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """All releases."""
    with asked.reading() as db:
        _, total = release_queries.releases(db, limit=0)
        part = sliced(asked, total, PER_PAGE)
        rows, _ = release_queries.releases(db, offset=part.offset, limit=PER_PAGE)
        return asked.show("releases.html", here="releases", rows=rows, page=part)


@router.get("/releases/{number}")
def release(number: int, asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """One release."""
    with asked.reading() as db:
        r = releases.find(db, min(number, 2**31 - 1))
        deployed = deployment_lists.views(db, release_id=r.id, limit=20)
        decision, problem = release_queries.decision(db, asked.context, r)
        return asked.show(
            "release.html", here="releases", r=r, decision=decision, problem=problem, deployments=deployed,
            running=release_queries.running_count(db, r), links=lineage.of_release(db, asked.context, r).links,
        )  # fmt: skip


@router.post("/releases/{number}/withdraw")
def withdraw(number: int, posted: Annotated[tuple[PageRequest, Form], Depends(needs("operator"))]) -> Response:
    """Withdraw a release."""
    asked, form = posted
    why = form.text("reason", longest=2000)
    if not why:
        raise bad_request("no-reason", because("problem.no-reason"), hint=because("hint.say-why"))
    with asked.writing() as db:
        releases.withdraw(db, asked.context, asked.person, min(number, 2**31 - 1), why)
    return asked.go(f"/releases/{number}", "withdrawn")
