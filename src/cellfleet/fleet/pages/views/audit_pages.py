"""The audit trail: who did what, when and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from cellfleet.fleet import audit
from cellfleet.fleet.pages.page_request import PageRequest, PageRoute, viewer
from cellfleet.fleet.pages.queries import audit_queries
from cellfleet.fleet.pages.rendering import Shared

router = APIRouter(route_class=PageRoute, include_in_schema=False)
PER_PAGE = 50


@router.get("/audit")
def listing(asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """Events, newest first; ``check=1`` checks the whole chain too."""
    who, action, subject, before = (
        asked.asks("actor"),
        asked.asks("action"),
        asked.asks("subject"),
        asked.asks("before"),
    )
    number = int(before) if before.isascii() and before.isdigit() and len(before) < 16 else None
    with asked.reading() as db:
        checked = audit.verify(db) if asked.asks("check") == "1" else None
        found = audit.listing(db, before=number, limit=PER_PAGE + 1, actor=who, action=action, subject=subject)
        events = list(found[:PER_PAGE])
        shared = Shared(asked.request, asked.context, asked.visitor, asked.language)
        older = shared.address(before=events[-1].seq, check=None) if len(found) > PER_PAGE else ""
        return asked.show(
            "audit.html", here="audit", events=events, after=older, checked=checked, actor=who, action=action,
            subject=subject, subject_link=audit_queries.address_of,
        )  # fmt: skip
