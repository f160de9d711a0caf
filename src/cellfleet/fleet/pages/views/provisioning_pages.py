"""Provisioning: instruments that wait, claim tokens, groups."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from cellfleet.fleet.pages.page_request import Form, PageRequest, PageRoute, needs, viewer
from cellfleet.fleet.pages.queries import provisioning_queries
from cellfleet.fleet.provisioning import claims, devices, groups
from cellfleet.fleet.refusals import RequestRefused, bad_request

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Posted = tuple[PageRequest, Form]
MAX_HOURS = 720


@router.get("/provisioning")
def provisioning(asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """Pending instruments, claim tokens, groups."""
    return _page(asked, None)


def _page(asked: PageRequest, problem: RequestRefused | None, **more: Any) -> Response:
    values = {"token": "", "token_until": None, "server": asked.context.address, **more}
    with asked.reading() as db:
        return asked.show(
            "provisioning.html", problem.status if problem else 200, here="provisioning", problem=problem,
            pending=provisioning_queries.pending(db), gone=provisioning_queries.gone(db),
            groups=provisioning_queries.groups(db), claims=provisioning_queries.claims(db), **values,
        )  # fmt: skip


@router.post("/provisioning/claims")
def make_claim(posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Create a claim token; only this answer shows it."""
    asked, form = posted
    try:
        hours = form.number("hours", 24)
        if not 0 < hours <= MAX_HOURS:
            raise bad_request("bad-hours", f"hours: {hours:g} is not within 1 and {MAX_HOURS}")
        with asked.writing() as db:
            token, row = claims.make(db, asked.context, asked.person, form.text("note", longest=200), hours)
    except RequestRefused as e:
        return _page(asked, e)
    response = _page(asked, None, token=token, token_until=row.expires_at)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.post("/provisioning/groups")
def make_group(posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Make a group."""
    asked, form = posted
    try:
        name, text = form.text("name", longest=128), form.text("description")
        with asked.writing() as db:
            groups.add(db, asked.context, asked.person, name, text)
    except RequestRefused as e:
        return _page(asked, e)
    return asked.go("/provisioning", "made")


@router.post("/provisioning/{device}/accept")
def accept(device: str, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Accept an instrument into the fleet and a group."""
    asked, form = posted
    try:
        with asked.writing() as db:
            devices.accept(db, asked.context, asked.person, device, group=form.text("group", longest=128) or None)
    except RequestRefused as e:
        return _page(asked, e)
    return asked.go("/provisioning", "accepted")


@router.post("/provisioning/{device}/reject")
def reject(device: str, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Reject an instrument."""
    asked, form = posted
    try:
        with asked.writing() as db:
            devices.reject(db, asked.context, asked.person, device, form.text("reason"))
    except RequestRefused as e:
        return _page(asked, e)
    return asked.go("/provisioning", "rejected")
