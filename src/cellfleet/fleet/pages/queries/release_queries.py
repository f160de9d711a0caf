"""What the pages of releases show: who runs them, the decision record, and the chain back to the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cellfleet.fleet import releases as releases_service
from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import Device, Release

NUMBERS = ("ap50", "map", "dice", "precision", "recall", "count_error", "confluence_error")
"""Numbers of a decision record that the page shows, in this order."""


@dataclass(frozen=True)
class DecisionView:
    """A decision record as plain data."""

    digest: str
    payload: Mapping[str, Any]

    @property
    def numbers(self) -> list[tuple[str, float]]:
        """The names and values that are there."""
        found = self.payload.get("numbers") or {}
        return [(n, float(found[n])) for n in NUMBERS if isinstance(found.get(n), int | float)]

    @property
    def strata(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Strata by name."""
        return sorted((self.payload.get("strata") or {}).items())

    @property
    def variants(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Variants by name; those that were not measured have no numbers."""
        return sorted((self.payload.get("variants") or {}).items())


def releases(db: Session, *, offset: int = 0, limit: int = 30) -> tuple[list[tuple[Release, int]], int]:
    """Releases, newest first, each with the number of instruments that run it; and how many there are."""
    total = db.scalar(select(func.count()).select_from(Release)) or 0
    found = db.scalars(
        select(Release).order_by(Release.published_at.desc(), Release.id.desc()).offset(offset).limit(limit)
    ).all()
    running = _running(db, [r.sha256 for r in found])
    return [(r, running.get(r.sha256, 0)) for r in found], total


def running_count(db: Session, release: Release) -> int:
    """How many instruments run a release."""
    return _running(db, [release.sha256]).get(release.sha256, 0)


def _running(db: Session, digests: list[str]) -> dict[str, int]:
    of = select(Device.active_sha256, func.count()).where(Device.state == "accepted", Device.active_sha256.in_(digests))
    return dict(db.execute(of.group_by(Device.active_sha256)).all())


def decision(db: Session, context: Context, release: Release) -> tuple[DecisionView | None, str]:
    """The decision record of a release, its signature checked; else None, and why there is none that counts."""
    payload, problem = releases_service.decision_of(db, context, release)
    return (None if payload is None else DecisionView(release.decision_digest, payload)), problem


def deployable(db: Session) -> list[Release]:
    """Releases that a new deployment may use, newest first."""
    of = select(Release).where(Release.withdrawn_at.is_(None))
    return list(db.scalars(of.order_by(Release.published_at.desc(), Release.id.desc()).limit(200)))
