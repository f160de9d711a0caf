"""One instrument: what runs, since when, why; its latest frame with the mask, curves, plate, timings, events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session
from starlette.responses import Response

from cellfleet.fleet import lineage
from cellfleet.fleet.byte_ranges import bytes_answer
from cellfleet.fleet.ingest import results
from cellfleet.fleet.pages.charts import WAIT, coloured, curve_chart, plate_view
from cellfleet.fleet.pages.instrument_health import condition
from cellfleet.fleet.pages.page_request import Form, PageRequest, PageRoute, needs, viewer
from cellfleet.fleet.pages.queries import device_queries
from cellfleet.fleet.pages.queries.device_queries import MAX_CURVES, WellReading
from cellfleet.fleet.pages.queries.fleet_queries import group_names
from cellfleet.fleet.provisioning import alarms, devices
from cellfleet.fleet.provisioning.alarms import alarms_of
from cellfleet.fleet.refusals import bad_request, not_found
from cellfleet.fleet.store.models import Device, DeviceGroup, Experiment
from cellfleet.wire.reason import because

Posted = tuple[PageRequest, Form]
router = APIRouter(route_class=PageRoute, include_in_schema=False)
EXPERIMENTS = 12
"""The latest experiments, of which one is shown."""
PICTURE_KINDS = ("overlay", "thumbnail", "mask", "raw")
SAFE_TYPES = ("image/png", "image/jpeg", "image/tiff", "image/webp")


@router.get("/devices/{name}")
def device(name: str, asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """The instrument."""
    now, settings = asked.context.clock.now(), asked.context.settings
    with asked.reading() as db:
        found = devices.find(db, name)
        reported = found.reported or {}
        active = reported.get("active") or {}
        group = db.get(DeviceGroup, found.group_id) if found.group_id else None
        counted = results.experiments(db, found.id, limit=EXPERIMENTS)
        known = sorted((e for e, _ in counted), key=lambda e: (e.started_at, e.id), reverse=True)
        chosen = _chosen(known, asked.asks("experiment"))
        return asked.show(
            "device.html", here="fleet", device=found, reported=reported, active=active,
            condition=condition(
                found.state, reported, alarms_of(found.alarms or {}, found.alarms_data), found.last_seen_at,
                now, settings.silent_after_s,
            ),
            release=device_queries.release_of(db, active.get("release_id")),
            why=device_queries.why(db, found.id, active.get("release_id")),
            group=group.name if group else "", groups=group_names(db), experiments=known, experiment=chosen,
            counts={e.name: counts for e, counts in counted},
            events=device_queries.events(db, found.id),
            shown=_shown(db, asked, found, chosen) if chosen else None,
        )  # fmt: skip


def _chosen(known: Sequence[Experiment], name: str) -> Experiment | None:
    for experiment in known:
        if experiment.name == name:
            return experiment
    return known[0] if known else None


def _shown(db: Session, asked: PageRequest, device: Device, experiment: Experiment) -> dict[str, Any]:
    """What is shown of an experiment."""
    readings = device_queries.plate(db, device.id, experiment.name)
    by = "count" if asked.asks("by") == "count" else "confluence"
    rows, row = _rows(readings), asked.asks("row")
    row = row if row in rows else (rows[0] if len(readings) > MAX_CURVES and rows else "")
    wells = [r.well for r in readings if not row or _row(r.well) == row][: 2 * MAX_CURVES]
    points = device_queries.curves(db, device.id, experiment.name, wells)
    stages, timed = device_queries.stages(db, device.id, experiment.name)
    _ = asked.language
    return {
        "readings": readings, "by": by, "rows": rows if len(readings) > MAX_CURVES else [], "row": row,
        "plate": plate_view(readings, experiment.plate_format, by), "points": points,
        "confluence": curve_chart(points, 1, "%", _("Confluence in per cent over hours, one curve per well")),
        "objects": curve_chart(points, 2, _("cells"), _("Number of cells over hours, one curve per well")),
        "stages": coloured(stages), "timed": timed, "total_ms": sum(ms for name, ms in stages if name != WAIT),
        "waited_s": sum(ms for name, ms in stages if name == WAIT) / 1000,
        "shots": device_queries.shots(db, device.id, experiment.name),
    }  # fmt: skip


def _row(well: str) -> str:
    return well.rstrip("0123456789") or well


def _rows(readings: Sequence[WellReading]) -> list[str]:
    return list(dict.fromkeys(_row(r.well) for r in readings))


@router.get("/devices/{name}/pictures/{experiment}/{frame}/{kind}")
def picture(
    name: str, experiment: str, frame: str, kind: str, asked: Annotated[PageRequest, Depends(viewer)]
) -> Response:
    """A picture of a frame; its address has its digest, so a browser keeps it."""
    with asked.reading() as db:
        found = devices.find(db, name)
        row = device_queries.picture(db, found.id, experiment, frame, kind) if kind in PICTURE_KINDS else None
        if row is None:
            raise not_found("picture of this frame")
    media = row.media_type if row.media_type in SAFE_TYPES else "application/octet-stream"
    keep = "max-age=31536000, immutable" if asked.request.query_params.get("v") == row.sha256[:12] else "no-cache"
    return bytes_answer(asked.context, asked.request, row.sha256, media_type=media, cache_control=f"private, {keep}")


@router.get("/devices/{name}/frames/{experiment}/{frame}")
def frame(name: str, experiment: str, frame: str, asked: Annotated[PageRequest, Depends(viewer)]) -> Response:
    """The lineage of the mask of a frame, back to the data."""
    with asked.reading() as db:
        found = devices.find(db, name)
        row, result, older = device_queries.frame(db, found.id, experiment, frame)
        if row is None:
            raise not_found(f"frame {experiment}/{frame} of {found.name}", hint="it may not have been sent yet")
        links = lineage.of_mask(db, asked.context, found.id, experiment, frame) if result else None
        return asked.show(
            "frame.html", here="fleet", device=found, experiment=experiment, frame=row, result=result, older=older,
            pictures=device_queries.pictures(db, found.id, experiment, frame), links=links.links if links else (),
            complete=bool(links and links.complete),
        )  # fmt: skip


def _address(device: Device) -> str:
    return f"/devices/{quote(device.name, safe='')}"


@router.post("/devices/{name}/group")
def move(name: str, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Set the group of an instrument."""
    asked, form = posted
    with asked.writing() as db:
        found = devices.move(db, asked.context, asked.person, name, form.text("group", longest=128) or None)
        return asked.go(_address(found), "changed")


@router.post("/devices/{name}/tags")
def tag(name: str, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Replace an instrument's tags."""
    asked, form = posted
    tags = [t for t in form.text("tags").replace("，", ",").replace(",", " ").split() if t]
    with asked.writing() as db:
        return asked.go(_address(devices.tag(db, asked.context, asked.person, name, tags)), "changed")


@router.post("/devices/{name}/revoke")
def revoke(name: str, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Revoke an instrument."""
    asked, form = posted
    why = form.text("reason", longest=2000)
    if not why:
        raise bad_request("no-reason", because("problem.no-reason"), hint=because("hint.say-why"))
    with asked.writing() as db:
        return asked.go(_address(devices.revoke(db, asked.context, asked.person, name, why)), "revoked")


@router.post("/devices/{name}/alarms")
def clear_alarms(name: str, posted: Annotated[Posted, Depends(needs("operator"))]) -> Response:
    """Clear the alarms."""
    asked, form = posted
    why = form.text("reason", longest=2000)
    if not why:
        raise bad_request("no-reason", because("problem.no-reason"), hint=because("hint.say-why"))
    with asked.writing() as db:
        alarms.clear(db, asked.context, asked.person, name, why)
        return asked.go(_address(devices.find(db, name)), "changed")
