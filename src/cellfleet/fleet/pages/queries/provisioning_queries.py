"""What the page of provisioning shows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cellfleet.fleet.store.models import ClaimToken, Device, DeviceGroup


def pending(db: Session, limit: int = 100) -> Sequence[Device]:
    """Instruments that wait to be accepted, the longest first."""
    return db.scalars(select(Device).where(Device.state == "pending").order_by(Device.created_at).limit(limit)).all()


def gone(db: Session, limit: int = 20) -> Sequence[Device]:
    """Instruments that were rejected or revoked, the latest first."""
    of = select(Device).where(Device.state.in_(("rejected", "revoked")))
    return db.scalars(of.order_by(Device.decided_at.desc()).limit(limit)).all()


def groups(db: Session) -> list[tuple[DeviceGroup, int]]:
    """Groups by name, each with the number of its accepted instruments."""
    count = (
        select(func.count(Device.id))
        .where(Device.group_id == DeviceGroup.id, Device.state == "accepted")
        .scalar_subquery()
    )
    return [(g, n) for g, n in db.execute(select(DeviceGroup, count).order_by(DeviceGroup.name))]


def claims(db: Session, limit: int = 12) -> Sequence[ClaimToken]:
    """Claim tokens, the latest first."""
    return db.scalars(select(ClaimToken).order_by(ClaimToken.id.desc()).limit(limit)).all()
