"""The fleet at a glance: who runs what, who is unwell and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from cellfleet.fleet.pages import queries_fleet, queries_rollout
from cellfleet.fleet.pages.visit import PageRoute, Visit, portion, sliced, viewer

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
def fleet(asked: Annotated[Visit, Depends(viewer)]) -> Response:
    """The fleet."""
    settings, now = asked.context.settings, asked.context.clock.now()
    show, group, release, text = asked.asks("show"), asked.asks("group"), asked.asks("release"), asked.asks("q")
    with asked.reading() as db:
        everyone = queries_fleet.lines(db, now, settings.silent_after_s)
        found = queries_fleet.chosen(everyone, FILTERS.get(show, ()), group, release, text, updating=show == "updating")
        under_way, _ = queries_rollout.deployments(db, states=queries_rollout.LIVE, limit=6)
        part = sliced(asked, len(found), PER_PAGE)
        counts = {
            "": len(everyone),
            "eyes": sum(x.condition.needs_eyes for x in everyone),
            "updating": sum(x.updating for x in everyone),
            "well": sum(x.condition.word == "well" for x in everyone),
            "unwell": sum(x.condition.word == "unwell" for x in everyone),
            "silent": sum(x.condition.word == "silent" for x in everyone),
        }
        versions = queries_fleet.versions(db, everyone)
        return asked.show(
            "fleet.html", here="fleet", rows=portion(found, part), page=part, counts=counts, show=show, group=group,
            release=release, text=text, worst=[x for x in everyone if x.condition.needs_eyes][:WORST],
            versions=versions, overridden={v.release_id for v in versions if v.override}, totals=queries_fleet.totals(everyone),
            under_way=under_way, groups=queries_fleet.group_names(db),
        )  # fmt: skip
