"""People: who may sign in, with which role. For admins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from cellfleet.fleet.pages.page_request import Form, PageRequest, PageRoute, needs, viewer
from cellfleet.fleet.people import accounts
from cellfleet.fleet.people.access import ROLES
from cellfleet.fleet.refusals import RequestRefused

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Posted = tuple[PageRequest, Form]


@router.get("/people")
def listing(asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """All people."""
    asked.person.need("admin")
    return _page(asked, {"name": "", "role": "viewer"}, None)


def _page(asked: PageRequest, values: Mapping[str, str], problem: RequestRefused | None) -> Response:
    with asked.reading() as db:
        return asked.show(
            "people.html", problem.status if problem else 200, here="people", people=accounts.listing(db), roles=ROLES,
            values=values, problem=problem,
        )  # fmt: skip


@router.post("/people")
def add(posted: Annotated[Posted, Depends(needs("admin"))]) -> Response:
    """Make an account."""
    asked, form = posted
    name, role = form.text("name", longest=64), form.text("role", longest=16)
    try:
        with asked.writing() as db:
            accounts.add(db, asked.context, asked.person.actor, name, role, form.fields.get("password", "")[:1000])
    except RequestRefused as e:
        return _page(asked, {"name": name, "role": role}, e)
    return asked.go("/people", "made")


def _change(posted: Posted, name: str, **changes: Any) -> Response:
    asked, _ = posted
    try:
        with asked.writing() as db:
            accounts.change(db, asked.context, asked.person.actor, name, **changes)
    except RequestRefused as e:
        return _page(asked, {"name": "", "role": "viewer"}, e)
    return asked.go("/people", "changed")


@router.post("/people/{name}/role")
def role(name: str, posted: Annotated[Posted, Depends(needs("admin"))]) -> Response:
    """Give another role."""
    return _change(posted, name, role=posted[1].text("role", longest=16))


@router.post("/people/{name}/disable")
def disable(name: str, posted: Annotated[Posted, Depends(needs("admin"))]) -> Response:
    """Disable an account; its sessions end."""
    return _change(posted, name, disabled=True)


@router.post("/people/{name}/enable")
def enable(name: str, posted: Annotated[Posted, Depends(needs("admin"))]) -> Response:
    """Enable an account again."""
    return _change(posted, name, disabled=False)
