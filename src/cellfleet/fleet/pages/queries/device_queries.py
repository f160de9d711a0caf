"""What the page of one instrument shows: experiments, curves, the plate, stages, pictures, events. Aggregated in SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from cellfleet.fleet.store.models import (
    Deployment,
    DeploymentMember,
    DeviceEvent,
    FrameRow,
    Picture,
    Release,
    ResultRow,
)

MAX_POINTS = 240
"""Greatest number of points of one curve; more frames are averaged in equal steps of time."""
MAX_CURVES = 12
STAGES = ("wait", "read", "prepare", "network", "resample", "objects", "measure", "watch", "overlay", "write")
TIMED_FRAMES = 60
LAP_FRAMES = 3000
"""The newest frames; a lap over a plate has fewer as a rule."""


@dataclass(frozen=True)
class WellReading:
    """A well now: its newest frame that counts. ``time_s`` since the experiment began."""

    well: str
    frame: str
    time_s: float
    confluence_percent: float
    count: int
    flags: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class FramePicture:
    """A frame and its pictures by kind (``overlay``, ``thumbnail``), each by digest."""

    frame: FrameRow
    result: ResultRow | None
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class BroughtBy:
    """The deployment that brought what runs."""

    deployment_id: int
    reason: str
    created_by: str


def release_of(db: Session, release_id: Any) -> Release | None:
    """A release, or None when there is none of that id."""
    return db.get(Release, release_id) if isinstance(release_id, int) else None


def why(db: Session, device_id: str, release_id: Any) -> BroughtBy | None:
    """Why an instrument runs a release: the latest deployment in which it took it."""
    row = db.execute(
        select(Deployment.id, Deployment.request, Deployment.created_by)
        .join(DeploymentMember, DeploymentMember.deployment_id == Deployment.id)
        .where(
            DeploymentMember.device_id == device_id,
            Deployment.release_id == release_id,
            DeploymentMember.state.in_(("succeeded", "updating")),
        )
        .order_by(Deployment.id.desc())
        .limit(1)
    ).first()
    return None if row is None else BroughtBy(row[0], str((row[1] or {}).get("reason") or ""), row[2])


def well_order(well: str) -> tuple[str, int, str]:
    """Sorts A2 before A10."""
    found = re.fullmatch(r"([A-Za-z]{1,2})(\d{1,3})", well)
    return (found[1].upper().rjust(2), int(found[2]), well) if found else ("~~", 0, well)


def plate(db: Session, device_id: str, experiment: str) -> list[WellReading]:
    """Every well's newest frame that counts, in the order of the plate. Reads only the newest frames where they are enough."""
    of = (FrameRow.device_id == device_id, FrameRow.experiment == experiment)
    wells = set(db.scalars(select(FrameRow.well).where(*of).distinct()))
    made = _readings(db, device_id, experiment, limit=LAP_FRAMES)
    if set(made) != wells:
        made = _readings(db, device_id, experiment, limit=None)
    return sorted(made.values(), key=lambda r: well_order(r.well))


def _readings(db: Session, device_id: str, experiment: str, limit: int | None) -> dict[str, WellReading]:
    """Well -> its newest frame that counts among the newest frames."""
    of = (FrameRow.device_id == device_id, FrameRow.experiment == experiment)
    newest = select(FrameRow.name, FrameRow.well, FrameRow.time_s, FrameRow.index).where(*of)
    frames = newest.order_by(FrameRow.index.desc()).limit(limit).subquery()
    rank = func.row_number().over(partition_by=frames.c.well, order_by=(frames.c.index.desc(), ResultRow.id.desc()))
    ranked = (
        select(frames.c.well, frames.c.name, frames.c.time_s, ResultRow.id, rank.label("rank"))
        .join(
            ResultRow,
            and_(
                ResultRow.device_id == device_id,
                ResultRow.experiment == experiment,
                ResultRow.frame == frames.c.name,
                ResultRow.superseded_by.is_(None),
            ),
        )
        .subquery()
    )
    rows = db.execute(
        select(
            ranked.c.well,
            ranked.c.name,
            ranked.c.time_s,
            ResultRow.confluence_percent,
            ResultRow.count,
            ResultRow.details,
        )
        .join(ResultRow, ResultRow.id == ranked.c.id)
        .where(ranked.c.rank == 1)
    )
    return {w: WellReading(w, f, t, c, n, tuple((d or {}).get("flags") or ())) for w, f, t, c, n, d in rows}


def curves(
    db: Session, device_id: str, experiment: str, wells: Sequence[str]
) -> dict[str, list[tuple[float, float, float]]]:
    """Well -> points (hours, confluence in per cent, count), averaged in equal steps where there are many."""
    if not wells:
        return {}
    of = (FrameRow.device_id == device_id, FrameRow.experiment == experiment, FrameRow.well.in_(wells))
    step_s = max(1.0, float(db.scalar(select(func.max(FrameRow.time_s)).where(*of)) or 0.0) / MAX_POINTS)
    bucket = func.floor(FrameRow.time_s / step_s)
    same = and_(
        ResultRow.device_id == device_id,
        ResultRow.experiment == experiment,
        ResultRow.frame == FrameRow.name,
        ResultRow.superseded_by.is_(None),
    )
    rows = db.execute(
        select(
            FrameRow.well, func.avg(FrameRow.time_s), func.avg(ResultRow.confluence_percent), func.avg(ResultRow.count)
        )
        .join(ResultRow, same)
        .where(*of)
        .group_by(FrameRow.well, bucket)
        .order_by(FrameRow.well, bucket)
    )
    made: dict[str, list[tuple[float, float, float]]] = {w: [] for w in wells}
    for well, time_s, confluence, count in rows:
        made[well].append((round(float(time_s) / 3600, 3), round(float(confluence), 2), round(float(count), 1)))
    return made


def stages(db: Session, device_id: str, experiment: str) -> tuple[list[tuple[str, float]], int]:
    """Median milliseconds of each stage over the newest frames that count, and how many frames that were."""
    rows = db.scalars(
        select(ResultRow.details)
        .where(ResultRow.device_id == device_id, ResultRow.experiment == experiment, ResultRow.superseded_by.is_(None))
        .order_by(ResultRow.id.desc())
        .limit(TIMED_FRAMES)
    ).all()
    timed = [dict(d.get("timings_ms") or {}) for d in rows if d and d.get("timings_ms")]
    names = {n for t in timed for n in t if n != "total"}
    ordered = [n for n in STAGES if n in names] + sorted(names - set(STAGES))
    return [(n, float(median(t.get(n, 0.0) for t in timed))) for n in ordered], len(timed)


def shots(db: Session, device_id: str, experiment: str, limit: int = 10) -> list[FramePicture]:
    """The newest frames that have pictures, newest first."""
    of = (Picture.device_id == device_id, Picture.experiment == experiment)
    newest = (
        select(FrameRow.id, FrameRow.name)
        .where(FrameRow.device_id == device_id, FrameRow.experiment == experiment)
        .order_by(FrameRow.index.desc())
        .limit(LAP_FRAMES)
        .subquery()
    )
    with_pictures = select(Picture.kind).where(
        *of, Picture.frame == newest.c.name, Picture.kind.in_(("overlay", "thumbnail"))
    )
    frames = db.scalars(
        select(FrameRow)
        .join(newest, newest.c.id == FrameRow.id)
        .where(with_pictures.exists())
        .order_by(FrameRow.index.desc())
        .limit(limit)
    ).all()
    names = [f.name for f in frames]
    pictures: dict[str, dict[str, str]] = {n: {} for n in names}
    for frame, kind, sha256 in db.execute(
        select(Picture.frame, Picture.kind, Picture.sha256).where(*of, Picture.frame.in_(names))
    ):
        pictures[frame][kind] = sha256
    results = {
        r.frame: r
        for r in db.scalars(
            select(ResultRow).where(
                ResultRow.device_id == device_id,
                ResultRow.experiment == experiment,
                ResultRow.frame.in_(names),
                ResultRow.superseded_by.is_(None),
            )
        )
    }
    return [FramePicture(f, results.get(f.name), pictures[f.name]) for f in frames]


def picture(db: Session, device_id: str, experiment: str, frame: str, kind: str) -> Picture | None:
    """A picture's row."""
    return db.get(Picture, (device_id, experiment, frame, kind))


def events(db: Session, device_id: str, limit: int = 24) -> list[DeviceEvent]:
    """What the instrument reported of itself, newest first."""
    of = select(DeviceEvent).where(DeviceEvent.device_id == device_id)
    return list(db.scalars(of.order_by(DeviceEvent.at.desc(), DeviceEvent.id.desc()).limit(limit)))


def frame(db: Session, device_id: str, experiment: str, name: str) -> tuple[FrameRow | None, ResultRow | None, int]:
    """A frame, its row that counts, and how many older masks are kept."""
    where = (FrameRow.device_id == device_id, FrameRow.experiment == experiment, FrameRow.name == name)
    found = db.scalar(select(FrameRow).where(*where))
    rows = (ResultRow.device_id == device_id, ResultRow.experiment == experiment, ResultRow.frame == name)
    counts = db.scalar(select(ResultRow).where(*rows, ResultRow.superseded_by.is_(None)).order_by(ResultRow.id.desc()))
    older = db.scalar(select(func.count()).select_from(ResultRow).where(*rows, ResultRow.superseded_by.is_not(None)))
    return found, counts, older or 0


def pictures(db: Session, device_id: str, experiment: str, name: str) -> dict[str, str]:
    """Pictures of a frame that a browser can show: kind -> digest."""
    of = select(Picture.kind, Picture.sha256).where(
        Picture.device_id == device_id,
        Picture.experiment == experiment,
        Picture.frame == name,
        Picture.kind.in_(("overlay", "thumbnail")),
    )
    return dict(db.execute(of).all())
