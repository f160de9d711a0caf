"""Telemetry: OTLP batches, each taken once; events found again by natural keys, in whatever order they come.

- The same key with the same bytes changes nothing; with other bytes it is refused.
- A frame counts once, by (device, experiment, frame); a row once, by (device, experiment, frame, run digest, pin). The row of
  the highest pin counts; the others are superseded by it, whichever came first.
- Times more than a day ahead of the server (or before the year 2000) are replaced by the time of receipt, which an alarm of the
  device and the answer's message say; the event itself is taken.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cellfleet.canonical import digest_of, sha256_hex
from cellfleet.errors import WireError
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Caller
from cellfleet.fleet.provisioning import alarms
from cellfleet.fleet.refusals import RequestRefused, bad_request, conflict, too_large
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import (
    Device,
    DeviceEvent,
    Experiment,
    FrameRow,
    GaugePoint,
    ResultRow,
    TelemetryBatch,
)
from cellfleet.wire.reason import because, english
from cellfleet.wire.telemetry_events import (
    AgentMoved,
    ExperimentStarted,
    FrameFailed,
    FrameSegmented,
    FrameTaken,
    Incident,
)
from cellfleet.wire.telemetry_otlp import Batch, decode_events, decode_gauges

AHEAD = timedelta(days=1)
_FIRST_YEAR, _LAST_YEAR = 2000, 2200
_SHOWN = 5
T = TypeVar("T")


@dataclass
class ReceiptTimes:
    """Replaces invalid times by the time of receipt and counts them."""

    now: datetime
    wrong: int = 0

    def right(self, at: datetime) -> datetime:
        """The time, or the time of receipt."""
        if _FIRST_YEAR <= at.year <= _LAST_YEAR and at <= self.now + AHEAD:
            return at
        self.wrong += 1
        return self.now


@dataclass
class BatchOutcome:
    """The result of a batch."""

    rejected: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        """For the sender; empty when all is well."""
        more = len(self.messages) - _SHOWN
        return "; ".join([*self.messages[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body of a request as it was before it was packed.

    Raises:
        RequestRefused: 400 damaged, 413 more than ``max_bytes`` when unpacked, 415 packed in another way.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise RequestRefused(415, "encoding", f"content encoding {encoding[:40]!r}", hint="send it plain or as gzip")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as e:
        raise RequestRefused(400, "damaged", f"the body is not valid gzip: {e}", hint="send it again") from e
    if len(data) > max_bytes:
        raise too_large(f"the unpacked body is too large; the limit is {max_bytes} bytes")
    if not unpacker.eof:
        raise RequestRefused(400, "damaged", "the body ends in the middle of its gzip stream", hint="send it again")
    return data


def take_logs(context: Context, caller: Caller, key: str, body: bytes) -> bytes:
    """Take events.

    Args:
        key: idempotency key of the batch; empty: the digest of its bytes.
        body: ExportLogsServiceRequest.

    Returns:
        ExportLogsServiceResponse; what could not be understood is its partial success.

    Raises:
        RequestRefused: 400 ``not-otlp``, 409 ``key-reused``.
    """
    outcome = _take(context, caller, key, body, decode_events)
    answer = ExportLogsServiceResponse()
    if outcome.message:
        answer.partial_success.rejected_log_records = outcome.rejected
        answer.partial_success.error_message = outcome.message
    return bytes(answer.SerializeToString())


def take_metrics(context: Context, caller: Caller, key: str, body: bytes) -> bytes:
    """Take measurements; as ``take_logs``."""
    outcome = _take(context, caller, key, body, decode_gauges)
    answer = ExportMetricsServiceResponse()
    if outcome.message:
        answer.partial_success.rejected_data_points = outcome.rejected
        answer.partial_success.error_message = outcome.message
    return bytes(answer.SerializeToString())


def _take(context: Context, caller: Caller, key: str, body: bytes, decode: Callable[[bytes], Batch]) -> BatchOutcome:
    digest = sha256_hex(body)
    key = key or digest
    if len(key) > 128 or not key.isprintable():
        raise bad_request("idempotency-key", "Idempotency-Key: the limit is 128 printable characters")
    with context.reading() as db:
        if _is_known(db, caller.device_id, key, digest):
            return BatchOutcome()  # a device that sends again costs next to nothing
    try:
        batch = decode(body)
    except WireError as e:
        raise RequestRefused(400, "not-otlp", e.message, hint=e.hint) from e
    return _once(context, caller, key, digest, batch)


def _is_known(db: Session, device_id: str, key: str, digest: str) -> bool:
    """This batch was taken before.

    Raises:
        RequestRefused: 409 ``key-reused``, another one with this key was.
    """
    found = db.get(TelemetryBatch, (device_id, key))
    if found is not None and found.sha256 != digest:
        raise conflict("key-reused", f"the Idempotency-Key {key} was used for another batch", hint="use a new key")
    return found is not None


def _once(context: Context, caller: Caller, key: str, digest: str, batch: Batch) -> BatchOutcome:
    now = context.clock.now()
    outcome = BatchOutcome(len(batch.bad), list(batch.bad))
    items = len(batch.events) + len(batch.gauges)
    row = {"device_id": caller.device_id, "key": key, "received_at": now, "items": items, "sha256": digest}
    with context.sessions() as db:
        if not insert_or_ignore(db, TelemetryBatch, [row]) and _is_known(db, caller.device_id, key, digest):
            return outcome  # it came twice at once
        times = ReceiptTimes(now)
        # This holds the device: of two batches at once the second sees the rows of the first, and supersedes rightly.
        db.execute(update(Device).where(Device.id == caller.device_id).values(last_seen_at=now))
        _take_events(db, caller.device_id, batch, times)
        _take_gauges(db, caller.device_id, batch, times)
        if times.wrong:
            reason = because("alarm.times", count=times.wrong)
            alarms.raise_alarm(db, context, caller.device_id, alarms.CLOCK, reason)
            outcome.messages.append(english(reason))
    return outcome


def _take_events(db: Session, device_id: str, batch: Batch, times: ReceiptTimes) -> None:
    _experiments(db, device_id, _of(batch, ExperimentStarted), times)
    _frames(db, device_id, _of(batch, FrameTaken), times)
    _results(db, device_id, _of(batch, FrameSegmented), times)
    rows = [
        {
            "device_id": device_id,
            "at": times.right(at),
            "kind": e.event,
            "content": content,
            "digest": digest_of(content),
        }
        for e, at, content in _device_events(batch)
    ]
    insert_or_ignore(db, DeviceEvent, rows)


def _of(batch: Batch, kind: type[T]) -> list[T]:
    return [e for e in batch.events if isinstance(e, kind)]


def _device_events(batch: Batch) -> Iterable[tuple[AgentMoved | Incident | FrameFailed, datetime, dict[str, Any]]]:
    for e in batch.events:
        if isinstance(e, AgentMoved | Incident):
            yield e, e.at, e.model_dump(mode="json")
        elif isinstance(e, FrameFailed):
            yield e, e.failed_at, e.model_dump(mode="json")


def _frames(db: Session, device_id: str, events: Sequence[FrameTaken], times: ReceiptTimes) -> None:
    rows = [
        {
            "device_id": device_id,
            "experiment": e.experiment,
            "name": e.frame,
            "index": min(e.index, 2**31 - 1),
            "well": e.well,
            "field": min(e.field, 2**31 - 1),
            "time_s": e.time_s,
            "taken_at": times.right(e.taken_at),
            "sha256": e.sha256,
            "bytes": min(e.bytes, 2**62),
            "problem": e.problem,
        }
        for e in events
    ]
    insert_or_ignore(db, FrameRow, rows)


def _results(db: Session, device_id: str, events: Sequence[FrameSegmented], times: ReceiptTimes) -> None:
    rows = [
        {
            "device_id": device_id,
            "experiment": e.experiment,
            "frame": e.frame,
            "pin": min(e.pin, 2**31 - 1),
            "run_digest": e.run_digest,
            "bundle_sha256": e.bundle_sha256,
            "release_id": e.release_id if e.release_id is None else min(max(e.release_id, 0), 2**31 - 1),
            "variant": e.variant[:128],
            "engine_version": e.engine_version[:128],
            "count": min(e.count, 2**31 - 1),
            "confluence_percent": e.confluence_percent,
            "per_mm2": e.per_mm2,
            "total_ms": e.timings_ms.get("total"),
            "details": e.model_dump(mode="json", include={"features", "flags", "timings_ms"}),
            "mask_sha256": e.mask_sha256,
            "segmented_at": times.right(e.segmented_at),
        }
        for e in events
    ]
    insert_or_ignore(db, ResultRow, rows)
    touched: dict[str, set[str]] = defaultdict(set)
    for e in events:
        touched[e.experiment].add(e.frame)
    for experiment, frames in touched.items():
        _supersede(db, device_id, experiment, sorted(frames))


def _supersede(db: Session, device_id: str, experiment: str, frames: Sequence[str]) -> None:
    """Of each frame's rows, the row with the highest pin counts; among equal pins, the latest segmented row."""
    columns = (ResultRow.id, ResultRow.frame, ResultRow.pin, ResultRow.segmented_at, ResultRow.superseded_by)
    for at in range(0, len(frames), 500):
        part = frames[at : at + 500]
        query = select(*columns).where(
            ResultRow.device_id == device_id, ResultRow.experiment == experiment, ResultRow.frame.in_(part)
        )
        by_frame: dict[str, list[Any]] = defaultdict(list)
        for row in db.execute(query):
            by_frame[row.frame].append(row)
        changes = []
        for rows in by_frame.values():
            if len(rows) > 1:
                best = max(rows, key=lambda r: (r.pin, r.segmented_at, r.id)).id
                changes += [
                    {"id": r.id, "superseded_by": None if r.id == best else best}
                    for r in rows
                    if r.superseded_by != (None if r.id == best else best)
                ]
        if changes:
            db.execute(update(ResultRow), changes)


def _experiments(db: Session, device_id: str, events: Sequence[ExperimentStarted], times: ReceiptTimes) -> None:
    """One row per experiment: the pin that counts is the highest; all events are kept, oldest pin first."""
    by_name: dict[str, list[ExperimentStarted]] = defaultdict(list)
    for e in events:
        by_name[e.experiment].append(e)
    for name, started in sorted(by_name.items()):
        first = {"device_id": device_id, "name": name, "started_at": times.right(started[0].started_at)}
        insert_or_ignore(db, Experiment, [first])
        query = select(Experiment).where(Experiment.device_id == device_id, Experiment.name == name)
        row = db.scalars(query.with_for_update().execution_options(populate_existing=True)).one()
        history = list(row.history)
        for e in started:
            content = e.model_dump(mode="json")
            if content not in history:
                history.append(content)
        history.sort(key=lambda x: x["pin"])  # stable: within a pin as they came
        row.history = history
        messages = [ExperimentStarted.model_validate(x) for x in history]
        last = messages[-1]
        ends = [times.right(m.ended_at) for m in messages if m.ended_at is not None]
        row.started_at = min(times.right(m.started_at) for m in messages)
        row.ended_at = max(ends, default=None)
        row.plate, row.plate_format = last.plate[:200], min(max(last.plate_format, 0), 2**31 - 1)
        row.pin, row.pinned_sha256 = min(last.pin, 2**31 - 1), last.pinned_sha256
        row.release_id = None if last.release_id is None else min(max(last.release_id, 0), 2**31 - 1)
        row.run_digest = last.run_digest[:64]


def _take_gauges(db: Session, device_id: str, batch: Batch, times: ReceiptTimes) -> None:
    rows = {
        (g.name[:64], at): {
            "device_id": device_id,
            "name": g.name[:64].replace("\0", ""),
            "at": at,
            "value": g.value,
            "unit": g.unit[:16].replace("\0", ""),
        }
        for g in batch.gauges
        if g.value == g.value and abs(g.value) != float("inf")
        for at in [times.right(g.at)]
    }
    insert_or_ignore(db, GaugePoint, list(rows.values()))
