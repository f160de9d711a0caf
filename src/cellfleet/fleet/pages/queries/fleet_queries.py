"""What the page of the whole fleet shows: every instrument in one query, versions, deployments under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cellfleet.fleet.pages.instrument_health import ORDER, Condition, condition
from cellfleet.fleet.provisioning.alarms import alarms_of
from cellfleet.fleet.store.models import Device, DeviceGroup, Release


@dataclass(frozen=True)
class InstrumentLine:
    """An instrument as a row of the table. ``active``: SlotReport as plain data, or None."""

    id: str
    name: str
    group: str
    tags: tuple[str, ...]
    condition: Condition
    active: Mapping[str, Any] | None
    agent: str
    update: Mapping[str, Any]
    experiment: str
    counters: Mapping[str, int]
    last_seen_at: datetime | None

    @property
    def updating(self) -> bool:
        """An update is between its offer and its end."""
        return self.agent not in ("", "idle")


@dataclass(frozen=True)
class RunningVersion:
    """A release and how many instruments run it; ``override`` when its gate was overruled."""

    release_id: int | None
    name: str
    version: str
    count: int
    override: bool


def lines(db: Session, now: datetime, silent_after_s: float) -> list[InstrumentLine]:
    """All accepted instruments, those that need eyes first. One query, narrow columns."""
    rows = db.execute(
        select(
            Device.id,
            Device.name,
            Device.tags,
            Device.state,
            Device.reported,
            Device.alarms,
            Device.alarms_data,
            Device.last_seen_at,
            DeviceGroup.name,
        )
        .outerjoin(DeviceGroup, DeviceGroup.id == Device.group_id)
        .where(Device.state == "accepted")
    )
    made = []
    for ident, name, tags, state, reported, alarms, data, seen, group in rows:
        report = reported or {}
        made.append(
            InstrumentLine(
                ident,
                name,
                group or "",
                tuple(str(t) for t in tags or ()),
                condition(state, report, alarms_of(alarms or {}, data), seen, now, silent_after_s),
                report.get("active"),
                str(report.get("state") or ""),
                report.get("update") or {},
                str(report.get("experiment") or ""),
                report.get("counters") or {},
                seen,
            )
        )
    return sorted(made, key=lambda x: (ORDER.index(x.condition.code), x.name))


def chosen(
    found: Sequence[InstrumentLine],
    words: Iterable[str],
    group: str,
    release: str,
    text: str,
    *,
    updating: bool = False,
) -> list[InstrumentLine]:
    """Those with one of the condition words (none: all), of the group, running the release, whose name or tag has the text."""
    wanted, text = set(words), text.casefold().strip()

    def fits(x: InstrumentLine) -> bool:
        runs = str((x.active or {}).get("release_id") or "")
        return (
            (not wanted or x.condition.code in wanted)
            and (not group or x.group == group)
            and (not release or runs == release)
            and (not updating or x.updating)
            and (not text or text in x.name.casefold() or any(text in t.casefold() for t in x.tags))
        )

    return [x for x in found if fits(x)]


def versions(db: Session, found: Sequence[InstrumentLine]) -> list[RunningVersion]:
    """Who runs what: releases by the number of instruments, most first."""
    counts: Counter[tuple[int | None, str, str]] = Counter()
    for x in found:
        active = x.active or {}
        counts[(active.get("release_id"), str(active.get("name") or ""), str(active.get("version") or ""))] += 1
    ids = [i for i, _, _ in counts if i is not None]
    overridden = {i for i, o in db.execute(select(Release.id, Release.override).where(Release.id.in_(ids))) if o}
    return [
        RunningVersion(ident, name, version, n, ident in overridden)
        for (ident, name, version), n in sorted(counts.items(), key=lambda c: (-c[1], c[0][1], c[0][2]))
    ]


def totals(found: Sequence[InstrumentLine]) -> dict[str, int]:
    """Frames over all instruments, as they count them."""
    return {
        word: sum(int(x.counters.get(word) or 0) for x in found) for word in ("taken", "stored", "segmented", "failed")
    }


def pending_count(db: Session) -> int:
    """Instruments that wait to be accepted."""
    return db.scalar(select(func.count()).select_from(Device).where(Device.state == "pending")) or 0


def group_names(db: Session) -> list[str]:
    """Names of the groups."""
    return list(db.scalars(select(DeviceGroup.name).order_by(DeviceGroup.name)))
