"""Lineage of a mask: row -> run -> release -> bundle -> decision -> training -> data set -> commit.

The links are those of ``cellfleet.lineage``; the records come from the table ``lineage_records``, and the release with who
published it, who answered for it and what was overridden stands between the run and the bundle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.canonical import digest_of
from cellfleet.errors import LineageError
from cellfleet.fleet import releases
from cellfleet.fleet.context import Context
from cellfleet.fleet.provisioning import devices
from cellfleet.fleet.refusals import not_found
from cellfleet.fleet.store.models import Device, Experiment, FrameRow, LineageRecord, Release, ResultRow
from cellfleet.lineage import RecordStore, trace
from cellfleet.lineage.chain import Chain, Link

_NOT_PUBLISHED = "this server never published this bundle"


class ReleaseRecords(RecordStore):
    """The records of a release in the database, as ``cellfleet.lineage`` reads them; reading only."""

    def __init__(self, db: Session, decision_digest: str) -> None:
        super().__init__(Path("lineage_records"))
        self._db, self._decision = db, decision_digest

    def get(self, kind: str, digest: str) -> dict[str, Any]:
        row = self._db.get(LineageRecord, (kind, digest))
        if row is None:
            raise LineageError(
                f"no {kind} record {digest[:12]} on this server", hint="it was not published with the release"
            )
        if digest_of(row.content) != digest:
            raise LineageError(f"the {kind} record {digest[:12]} was changed", hint="restore it from a backup")
        return row.content

    def all(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if kind == releases.DECISION and self._decision:
            with contextlib.suppress(LineageError):  # ``releases.decision_of`` says why it cannot be shown
                yield self._decision, self.get(kind, self._decision)


def of_mask(db: Session, context: Context, device_ref: str, experiment: str, frame: str) -> Chain:
    """The chain of the mask of a frame that counts.

    Raises:
        RequestRefused: 404.
    """
    device = devices.find(db, device_ref)
    query = select(ResultRow).where(
        ResultRow.device_id == device.id, ResultRow.experiment == experiment, ResultRow.frame == frame
    )
    row = db.scalars(query.order_by(ResultRow.superseded_by.is_not(None), ResultRow.id.desc())).first()
    if row is None:
        raise not_found(
            f"mask of {device.name}/{experiment}/{frame}", hint="it may not have been segmented or sent yet"
        )
    return _chain(db, context, row, _mask_facts(db, device, row))


def of_run(db: Session, context: Context, run_digest: str) -> Chain:
    """The chain of a run: everything but the single mask.

    Raises:
        RequestRefused: 404.
    """
    query = select(ResultRow).where(ResultRow.run_digest == run_digest).order_by(ResultRow.id).limit(1)
    row = db.scalars(query).first()
    if row is None:
        raise not_found(f"run {run_digest[:12]}")
    return _chain(db, context, row, None)


def of_release(db: Session, context: Context, release: Release) -> Chain:
    """The chain of a release, from its bundle back to its data."""
    return _from_bundle(db, context, release, release.sha256)


def _from_bundle(
    db: Session,
    context: Context,
    release: Release | None,
    sha256: str,
    mask: Mapping[str, Any] | None = None,
    variant: str = "",
) -> Chain:
    payload, problem = releases.decision_of(db, context, release) if release is not None else (None, _NOT_PUBLISHED)
    chain = trace(
        mask=mask,
        bundle=_bundle(release, payload),
        bundle_sha256=sha256,
        variant=variant,
        store=ReleaseRecords(db, release.decision_digest if release is not None else ""),
        trusted=releases.trusted_keys(context),
    )
    return Chain(tuple(_doubted(x, problem) if x.what == "decision" and problem else x for x in chain.links))


def _doubted(decision: Link, problem: str) -> Link:
    """A decision that this server cannot vouch for: its release was published without it, or it was changed since."""
    facts = {name: value for name, value in decision.facts.items() if name != "signature"} if decision.digest else {}
    return Link("decision", decision.digest, facts, problem)


def _chain(db: Session, context: Context, row: ResultRow, mask: dict[str, Any] | None) -> Chain:
    release = db.scalars(select(Release).where(Release.sha256 == row.bundle_sha256)).one_or_none()
    facts = {**(mask or {}), "run_digest": row.run_digest, "settings": {"engine": _engine(row)}}
    chain = _from_bundle(db, context, release, row.bundle_sha256, facts, row.variant)
    links = [x for x in chain.links if x.what != "mask" or mask is not None]
    after_run = next(i for i, x in enumerate(links) if x.what == "run") + 1
    links.insert(after_run, _release(release))
    return Chain(tuple(links))


def _mask_facts(db: Session, device: Device, row: ResultRow) -> dict[str, Any]:
    where = (FrameRow.device_id == device.id, FrameRow.experiment == row.experiment, FrameRow.name == row.frame)
    frame = db.scalars(select(FrameRow).where(*where)).first()
    plate = db.scalars(
        select(Experiment).where(Experiment.device_id == device.id, Experiment.name == row.experiment)
    ).first()
    facts: dict[str, Any] = {
        "sha256": row.mask_sha256,
        "instrument": f"{device.name} ({device.id})",
        "experiment": row.experiment,
        "frame": row.frame,
        "plate": plate.plate if plate is not None else "",
        "count": row.count,
        "confluence_percent": round(row.confluence_percent, 3),
        "segmented_at": row.segmented_at.isoformat(timespec="seconds"),
    }
    if frame is not None:
        facts |= {
            "well": frame.well,
            "taken_at": frame.taken_at.isoformat(timespec="seconds"),
            "frame_sha256": frame.sha256,
        }
    if row.pin > 1 or row.superseded_by is not None:
        facts["pin"] = row.pin
        history = plate.history if plate is not None else []
        why = {(h["pin"], h["reason"]): h["reason"] for h in history if h.get("reason")}  # reported again when it ends
        facts["pinned_anew"] = list(why.values())
    flags = [f"{f['name']}: {f['reason']}" for f in row.details.get("flags", [])]
    return {**facts, **({"flags": flags} if flags else {})}


def _engine(row: ResultRow) -> str:
    engine, version = row.variant.partition("/")[0], row.engine_version
    return version if version.startswith(f"{engine} ") else f"{engine} {version}".strip()


def _bundle(release: Release | None, payload: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The bundle's facts; where it comes from is taken from the signed record when there is a good one."""
    if release is None:
        return None
    lineage = (payload or {}).get("lineage") or release.card.get("lineage") or {}
    source = "the signed decision record" if (payload or {}).get("lineage") else "its publisher, unsigned"
    return {
        "name": release.name,
        "version": release.version,
        "bytes": release.length,
        **({"origin_according_to": source} if lineage else {}),
        "lineage": lineage if isinstance(lineage, dict) else {},
    }


def _release(release: Release | None) -> Link:
    if release is None:
        return Link("release", "", {}, _NOT_PUBLISHED)
    facts: dict[str, Any] = {
        "release": release.id,
        "name": f"{release.name} {release.version}",
        "counter": release.counter,
        "published_by": release.published_by,
        "published_at": release.published_at.isoformat(timespec="seconds"),
        "verdict": release.verdict or "none",
        "approver": release.approver,
    }
    if release.override:
        facts["override"] = f"{release.override['by']}, {release.override['at']}: {release.override['reason']}"
    if release.withdrawn_at is not None:
        facts["withdrawn_at"] = release.withdrawn_at.isoformat(timespec="seconds")
    return Link("release", "", facts)
