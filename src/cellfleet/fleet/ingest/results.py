"""Results of instruments: experiments, rows, pictures. Superseded rows are left out by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, distinct, func, select
from sqlalchemy.orm import Session

from cellfleet.fleet.refusals import not_found
from cellfleet.fleet.store.models import Experiment, FrameRow, Picture, ResultRow


@dataclass(frozen=True)
class FrameCounts:
    """Frames as the server counts them. A frame and a row exist once, by their natural keys.

    Attributes:
        taken: frames that a device reported.
        unreadable: those of them that cannot be read.
        segmented: those of them that have a row that counts.
        rows: rows that count, of frames that are not reported yet, too.
        superseded: rows that were superseded.
    """

    taken: int = 0
    unreadable: int = 0
    segmented: int = 0
    rows: int = 0
    superseded: int = 0


def experiments(
    db: Session, device_id: str, *, before: int = 0, limit: int = 100
) -> list[tuple[Experiment, FrameCounts]]:
    """Experiments of a device, newest first, each with its counts; three queries whatever the number."""
    query = select(Experiment).where(Experiment.device_id == device_id).order_by(Experiment.id.desc()).limit(limit)
    if before:
        query = query.where(Experiment.id < before)
    found = db.scalars(query).all()
    counts = _counts(db, device_id, [e.name for e in found])
    return [(e, counts.get(e.name, FrameCounts())) for e in found]


def counts(db: Session, device_id: str) -> FrameCounts:
    """Counts of all of a device's frames."""
    taken, unreadable = db.execute(_taken().where(FrameRow.device_id == device_id)).one()
    rows, superseded = db.execute(_rows().where(ResultRow.device_id == device_id)).one()
    segmented = db.scalar(_segmented().where(FrameRow.device_id == device_id)) or 0
    return FrameCounts(taken, unreadable, segmented, rows, superseded)


def _counts(db: Session, device_id: str, names: Sequence[str]) -> dict[str, FrameCounts]:
    of_frames = (FrameRow.device_id == device_id, FrameRow.experiment.in_(names))
    of_rows = (ResultRow.device_id == device_id, ResultRow.experiment.in_(names))
    frames = _taken().add_columns(FrameRow.experiment).where(*of_frames).group_by(FrameRow.experiment)
    rows = _rows().add_columns(ResultRow.experiment).where(*of_rows).group_by(ResultRow.experiment)
    done = _segmented().add_columns(FrameRow.experiment).where(*of_frames).group_by(FrameRow.experiment)
    found = {name: [0, 0, 0, 0, 0] for name in names}
    for taken, unreadable, name in db.execute(frames):
        found[name][0], found[name][1] = taken, unreadable
    for segmented, name in db.execute(done):
        found[name][2] = segmented
    for good, superseded, name in db.execute(rows):
        found[name][3], found[name][4] = good, superseded
    return {name: FrameCounts(*numbers) for name, numbers in found.items()}


def _taken() -> Select[int, int]:
    return select(func.count(FrameRow.id), func.count(FrameRow.id).filter(FrameRow.problem != ""))


def _rows() -> Select[int, int]:
    good = ResultRow.superseded_by.is_(None)
    return select(func.count(ResultRow.id).filter(good), func.count(ResultRow.id).filter(~good))


def _segmented() -> Select[int]:
    return select(func.count(distinct(FrameRow.id))).join(
        ResultRow, and_(_same_frame(), ResultRow.superseded_by.is_(None))
    )


def _same_frame() -> ColumnElement[bool]:
    return and_(
        ResultRow.device_id == FrameRow.device_id,
        ResultRow.experiment == FrameRow.experiment,
        ResultRow.frame == FrameRow.name,
    )


def rows(
    db: Session,
    device_id: str,
    *,
    experiment: str = "",
    well: str = "",
    superseded: bool = False,
    after: int = 0,
    limit: int = 100,
) -> Sequence[tuple[ResultRow, FrameRow | None]]:
    """Rows in the order in which they came, each with its frame when that is known.

    Args:
        superseded: superseded ones, too.
        after: only those with a higher number.
    """
    query = (
        select(ResultRow, FrameRow)
        .outerjoin(FrameRow, _same_frame())
        .where(ResultRow.device_id == device_id, ResultRow.id > after)
        .order_by(ResultRow.id)
        .limit(limit)
    )
    if experiment:
        query = query.where(ResultRow.experiment == experiment)
    if well:
        query = query.where(FrameRow.well == well)
    if not superseded:
        query = query.where(ResultRow.superseded_by.is_(None))
    return [(r, f) for r, f in db.execute(query)]


def picture(db: Session, device_id: str, experiment: str, frame: str, kind: str) -> Picture:
    """A picture of a frame.

    Raises:
        RequestRefused: 404.
    """
    found = db.get(Picture, (device_id, experiment, frame, kind))
    if found is None:
        raise not_found(f"{kind} of {experiment}/{frame}", hint="it may not have been sent yet")
    return found
