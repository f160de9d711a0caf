"""Deployments: the list, one with its phases and members, the form for a new one, and the actions on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy import func, select
from starlette.responses import Response

from cellfleet.fleet.pages.deployment_form import DEFAULTS, request_of
from cellfleet.fleet.pages.page_request import Form, PageRequest, PageRoute, needs, sliced, viewer
from cellfleet.fleet.pages.queries import audit_queries, release_queries
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.refusals import RequestRefused, bad_request
from cellfleet.fleet.rollout import deployment_lists, deployments, reconcile
from cellfleet.fleet.store.models import Deployment, Device, DeviceGroup
from cellfleet.wire.reason import because
from cellfleet.wire.rollout import FAILURES, LIVE

router = APIRouter(route_class=PageRoute, include_in_schema=False)
PER_PAGE, MEMBERS = 30, 50
SHOWN = {
    "live": LIVE,
    "halted": ("halted",),
    "succeeded": ("succeeded",),
    "cancelled": ("cancelled",),
}
Posted = tuple[PageRequest, Form]


@router.get("/deployments")
def listing(asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """All deployments."""
    show = asked.asks("show")
    with asked.reading() as db:
        states = SHOWN.get(show, ())
        part = sliced(asked, deployment_lists.count(db, states=states), PER_PAGE)
        rows = deployment_lists.views(db, states=states, offset=part.offset, limit=PER_PAGE)
        return asked.show("deployments.html", here="deployments", rows=rows, page=part, show=show)


@router.get("/deployments/new")
def new(asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """The form for a new deployment."""
    asked.person.need("operator")
    return _form(asked, {**DEFAULTS, "release_id": asked.asks("release")}, None)


def _form(asked: PageRequest, values: Mapping[str, str], problem: RequestRefused | None) -> Response:
    with asked.reading() as db:
        groups = db.execute(
            select(DeviceGroup.name, func.count(Device.id))
            .outerjoin(Device, (Device.group_id == DeviceGroup.id) & (Device.state == "accepted"))
            .group_by(DeviceGroup.name)
            .order_by(DeviceGroup.name)
        ).all()
        releases = release_queries.deployable(db)
        values = {**values, "release_id": values["release_id"] or _first(r.id for r in releases if not r.override)}
        values["group"] = values["group"] or _first(name for name, count in groups if count)
        return asked.show(
            "deployment_new.html", problem.status if problem else 200, here="deployments", values=values,
            problem=problem, groups=[(n, c) for n, c in groups], releases=releases,
        )  # fmt: skip


def _first(found: Iterable[object]) -> str:
    """The default choice: never a release with an override, nor an empty group."""
    return str(next(iter(found), ""))


@router.post("/deployments/new")
def make(posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Create a deployment; a problem is shown above the form, which keeps its values."""
    asked, form = posted
    try:
        request = request_of(form)
        with asked.writing() as db:
            made = deployments.create(db, asked.context, asked.person, request).id
    except RequestRefused as e:
        if e.status in (401, 403):
            raise
        return _form(asked, {**dict.fromkeys(DEFAULTS, ""), **form.fields}, e)
    return asked.go(f"/deployments/{made}", "started")


@router.get("/deployments/{number}")
def deployment(number: int, asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """One deployment."""
    show = asked.asks("show")
    show = show if show in (*deployment_lists.WORST_FIRST, "trouble") else ""
    states = FAILURES if show == "trouble" else (show,) if show else ()
    with asked.reading() as db:
        row = deployment_lists.view(db, min(number, 2**31 - 1))
        part = sliced(asked, sum(row.counts.get(s, 0) for s in states) if states else row.total, MEMBERS)
        members = deployment_lists.members(
            db, number, states=states, worst_first=True, offset=part.offset, limit=MEMBERS
        )
        return asked.show(
            "deployment.html", here="deployments", row=row, phases=deployment_lists.phases(db, row), members=members,
            page=part, show=show, actions=_actions(asked.person, row.deployment),
            waits_for=reconcile.waits_for(db, asked.context, row.deployment),
            history=audit_queries.of_subject(db, f"deployment:{number}"),
        )  # fmt: skip


def _actions(person: Person, d: Deployment) -> list[str]:
    found = []
    if d.state == "awaiting-approval" and person.may("approver"):
        found.append("approve")
    if person.may("operator"):
        found += {
            "halted": ["resume", "cancel"],
            "running": ["halt", "cancel"],
            "awaiting-approval": ["halt", "cancel"],
        }.get(d.state, [])
    return found


def _act(posted: Posted, number: int, what: Callable[..., Any], done: str, *, reason: bool = True) -> Response:
    asked, form = posted
    why = form.text("reason", longest=2000)
    if reason and not why:
        raise bad_request("no-reason", because("problem.no-reason"), hint=because("hint.say-why"))
    with asked.writing() as db:
        what(db, asked.context, asked.person, number, why)
    return asked.go(f"/deployments/{number}", done)


@router.post("/deployments/{number}/approve")
def approve(number: int, posted: Annotated[Posted, Depends(needs("approver"))]) -> Response:
    """Approve the phase that waits."""
    return _act(posted, number, deployments.approve, "approved", reason=False)


@router.post("/deployments/{number}/halt")
def halt(number: int, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Halt a deployment."""
    return _act(posted, number, deployments.halt, "halted")


@router.post("/deployments/{number}/resume")
def resume(number: int, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Resume a deployment."""
    return _act(posted, number, deployments.resume, "resumed")


@router.post("/deployments/{number}/cancel")
def cancel(number: int, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Cancel a deployment."""
    return _act(posted, number, deployments.cancel, "cancelled")
