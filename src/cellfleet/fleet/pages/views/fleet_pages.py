"""The fleet at a glance: who runs what, who is unwell and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from cellfleet.fleet.pages.page_request import PageRequest, PageRoute, portion, sliced, viewer
from cellfleet.fleet.pages.queries import fleet_queries
from cellfleet.fleet.rollout import deployment_lists
from cellfleet.wire.rollout import LIVE

router = APIRouter(route_class=PageRoute, include_in_schema=False)
PER_PAGE = 50
WORST = 8
FILTERS = {
    "": (),
    "eyes": ("unwell", "silent", "warning"),
    "unwell": ("unwell",),
    "silent": ("silent",),
    "well": ("well",),
}


@router.get("/")
def fleet(asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """The fleet."""
    settings, now = asked.context.settings, asked.context.clock.now()
    show, group, release, text = asked.asks("show"), asked.asks("group"), asked.asks("release"), asked.asks("q")
    with asked.reading() as db:
        everyone = fleet_queries.lines(db, now, settings.silent_after_s)
        found = fleet_queries.chosen(everyone, FILTERS.get(show, ()), group, release, text, updating=show == "updating")
        under_way = deployment_lists.views(db, states=LIVE, limit=6)
        part = sliced(asked, len(found), PER_PAGE)
        counts = {
            "": len(everyone),
            "eyes": sum(x.condition.needs_eyes for x in everyone),
            "updating": sum(x.updating for x in everyone),
            "well": sum(x.condition.code == "well" for x in everyone),
            "unwell": sum(x.condition.code == "unwell" for x in everyone),
            "silent": sum(x.condition.code == "silent" for x in everyone),
        }
        versions = fleet_queries.versions(db, everyone)
        return asked.show(
            "fleet.html", here="fleet", rows=portion(found, part), page=part, counts=counts, show=show, group=group,
            release=release, text=text, worst=[x for x in everyone if x.condition.needs_eyes][:WORST],
            versions=versions, overridden={v.release_id for v in versions if v.override}, totals=fleet_queries.totals(everyone),
            under_way=under_way, groups=fleet_queries.group_names(db),
        )  # fmt: skip
