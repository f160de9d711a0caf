"""Frames and results of the instruments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from cellfleet.fleet.api.dependencies import (
    Ctx,
    Db,
    DeviceRef,
    InPortions,
    KeyPath,
    Listing,
    Operator,
    OptionalReason,
    person,
)
from cellfleet.fleet.byte_ranges import BINARY, bytes_answer
from cellfleet.fleet.ingest import results
from cellfleet.fleet.ingest.results import FrameCounts
from cellfleet.fleet.provisioning import alarms, devices
from cellfleet.fleet.store.models import Experiment, FrameRow, ResultRow
from cellfleet.wire import Message
from cellfleet.wire.base import Time

router = APIRouter(prefix="/api/v1/devices/{device}", tags=["results"])


class CountsAnswer(Message):
    """Frames as the server counts them; each exists once.

    Attributes:
        taken: frames that the device reported.
        unreadable: those of them that cannot be read.
        segmented: those of them that have a row that counts.
        rows: rows that count.
        superseded: rows that were superseded.
    """

    taken: int = Field(examples=[60])
    unreadable: int = Field(examples=[0])
    segmented: int = Field(examples=[60])
    rows: int = Field(examples=[60])
    superseded: int = Field(examples=[12])


class ExperimentAnswer(Message):
    """One time-lapse on one plate. ``history``: its pins as the device reported them, oldest first."""

    name: str = Field(examples=["plate-7"])
    plate: str = ""
    plate_format: int = Field(examples=[96])
    started_at: Time
    ended_at: Time | None = None
    pin: int = Field(examples=[1])
    pinned_sha256: str = ""
    release_id: int | None = None
    run_digest: str = ""
    counts: CountsAnswer
    history: tuple[dict[str, Any], ...] = ()


class ResultAnswer(Message):
    """A mask's row. ``superseded_by``: the row that counts instead; None: this one counts."""

    id: int = Field(examples=[1])
    experiment: str = Field(examples=["plate-7"])
    frame: str = Field(examples=["A1_t0001"])
    well: str = Field(default="", examples=["A1"])
    time_s: float | None = Field(default=None, examples=[600.0])
    pin: int = Field(examples=[1])
    run_digest: str = Field(examples=["046bf81804f573b14297a10c74cb15e8e6fae729c6974c875034a243f90ed4c6"])
    bundle_sha256: str = Field(examples=["2b77b9af54c800a688cfa517f8fbeb7514eec4d7730a8c4cd9530e77d950bba9"])
    release_id: int | None = Field(default=None, examples=[2])
    variant: str = Field(examples=["openvino/fp32"])
    engine_version: str = ""
    count: int = Field(examples=[84])
    confluence_percent: float = Field(examples=[41.5])
    per_mm2: float | None = Field(default=None, examples=[187.5])
    total_ms: float | None = Field(default=None, examples=[61.0])
    details: dict[str, Any] = Field(default={})
    mask_sha256: str = Field(examples=["9b05d98e516bcf5ddb5bd5f5c7e32ccff1ccf02ffa537ffcddf33d7385d8ff4f"])
    segmented_at: Time
    superseded_by: int | None = None


def _counts(c: FrameCounts) -> CountsAnswer:
    return CountsAnswer(
        taken=c.taken, unreadable=c.unreadable, segmented=c.segmented, rows=c.rows, superseded=c.superseded
    )


def _experiment(e: Experiment, c: FrameCounts) -> ExperimentAnswer:
    return ExperimentAnswer(
        name=e.name,
        plate=e.plate,
        plate_format=e.plate_format,
        started_at=e.started_at,
        ended_at=e.ended_at,
        pin=e.pin,
        pinned_sha256=e.pinned_sha256,
        release_id=e.release_id,
        run_digest=e.run_digest,
        counts=_counts(c),
        history=tuple(e.history),
    )


def _result(r: ResultRow, f: FrameRow | None) -> ResultAnswer:
    names = set(ResultAnswer.model_fields) - {"well", "time_s"}
    facts = {name: getattr(r, name) for name in names}
    return ResultAnswer(**facts, well=f.well if f else "", time_s=f.time_s if f else None)


@router.get(
    "/counts",
    summary="Counts of a device's frames",
    description="Over all its experiments.",
    dependencies=[person("viewer")],
)
def count(db: Db, device: DeviceRef) -> CountsAnswer:
    return _counts(results.counts(db, devices.find(db, device).id))


@router.get(
    "/experiments",
    summary="Experiments of a device",
    description="Newest first, with counts of frames.",
    dependencies=[person("viewer")],
)
def experiments(db: Db, device: DeviceRef, portion: InPortions) -> Listing[ExperimentAnswer]:
    found = results.experiments(db, devices.find(db, device).id, before=portion.after_id, limit=portion.limit)
    more = str(found[-1][0].id) if len(found) == portion.limit else ""
    return Listing[ExperimentAnswer](items=tuple(_experiment(e, c) for e, c in found), next=more)


@router.get(
    "/results",
    summary="Rows of a device",
    description="In the order of arrival; without superseded rows by default.",
    dependencies=[person("viewer")],
)
def rows(
    db: Db,
    device: DeviceRef,
    portion: InPortions,
    experiment: Annotated[
        str, Query(max_length=128, description="Only of this experiment.", examples=["plate-7"])
    ] = "",
    well: Annotated[str, Query(max_length=128, description="Only of this well.", examples=["A1"])] = "",
    superseded: Annotated[bool, Query(description="Include superseded rows.", examples=[False])] = False,
) -> Listing[ResultAnswer]:
    found = results.rows(
        db,
        devices.find(db, device).id,
        experiment=experiment,
        well=well,
        superseded=superseded,
        after=portion.after_id,
        limit=portion.limit,
    )
    more = str(found[-1][0].id) if len(found) == portion.limit else ""
    return Listing[ResultAnswer](items=tuple(_result(r, f) for r, f in found), next=more)


@router.get(
    "/pictures/{experiment}/{frame}/{kind}",
    summary="A picture of a frame",
    description="As the device sent it, of the pin that counts once its picture has arrived.",
    response_class=Response,
    responses=BINARY,
    dependencies=[person("viewer")],
)
def picture(
    context: Ctx,
    db: Db,
    request: Request,
    device: DeviceRef,
    experiment: KeyPath,
    frame: KeyPath,
    kind: Annotated[Literal["thumbnail", "overlay", "mask", "raw"], Path(examples=["overlay"])],
) -> Response:
    found = results.picture(db, devices.find(db, device).id, experiment, frame, kind)
    return bytes_answer(context, request, found.sha256, media_type=found.media_type, cache_control="private, max-age=0")


@router.post(
    "/alarms/clear",
    status_code=204,
    summary="Clear the alarms of a device",
    description="After an operator has checked them; the next report raises an alarm again if its cause remains.",
)
def clear_alarms(context: Ctx, db: Db, by: Operator, device: DeviceRef, body: OptionalReason) -> None:
    alarms.clear(db, context, by, device, body.reason)
