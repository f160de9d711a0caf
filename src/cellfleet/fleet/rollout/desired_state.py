"""What the server wants on a device: stored with the device, so that asking for it reads one row and signs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cellfleet.canonical import digest_of
from cellfleet.fleet import trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.refusals import not_found
from cellfleet.fleet.releases import artifact_of
from cellfleet.fleet.store.models import Deployment, DeploymentMember, Device, Release
from cellfleet.wire.features import NONE, used_features
from cellfleet.wire.states import DesiredState, ReleaseRef

_TOUCH_S = 10.0
"""Least time between two updates of a device's last contact by polls."""


@dataclass(frozen=True)
class DesiredAnswer:
    """A desired state and its ETag; ``state`` is None when the caller has it already."""

    etag: str
    state: DesiredState | None


def ref_of(release: Release) -> ReleaseRef:
    """A release as devices know it."""
    return ReleaseRef(release_id=release.id, **artifact_of(release).model_dump())


def content_of(deployment: Deployment, release: Release) -> dict[str, Any]:
    """The stored desired state of a device of this deployment."""
    request = deployment.request
    return {
        "deployment_id": deployment.id,
        "release": ref_of(release).model_dump(mode="json"),
        "window": request.get("window"),
        "agent": dict(request.get("agent") or {}),
    }


NOTHING: Mapping[str, Any] = {"deployment_id": None, "release": None, "window": None, "agent": {}}
"""No release is desired; the device keeps its version."""


def change(db: Session, context: Context, wanted: Iterable[tuple[Device, Mapping[str, Any]]]) -> list[str]:
    """Give devices other desired states; where nothing is new, nothing is written or signed.

    Args:
        wanted: devices, whose rows the caller holds, and contents.

    Returns:
        Ids of the devices whose desired state changed.

    Raises:
        RequestRefused: 503 ``trust-keys``.
    """
    changed = []
    for device, content in wanted:
        if dict(content) == {**NOTHING, **device.desired}:
            continue
        device.desired = dict(content)
        device.desired_generation += 1
        device.desired_etag = digest_of({"generation": device.desired_generation, **content})[:32]
        changed.append(device)
    trust_repository.sign(db, context, [trust_repository.wanted_of(d) for d in changed])
    return [d.id for d in changed]


def before(db: Session, devices: Sequence[Device], deployment_id: int) -> dict[str, Mapping[str, Any]]:
    """What each device is to have when a deployment is taken away from it: what it runs, if an earlier deployment brought
    that, else nothing in particular."""
    found: dict[str, Mapping[str, Any]] = {d.id: NOTHING for d in devices}
    active = {d.id: d.active_sha256 for d in devices}
    query = (
        select(DeploymentMember.device_id, Deployment, Release)
        .join(Deployment, Deployment.id == DeploymentMember.deployment_id)
        .join(Release, Release.id == Deployment.release_id)
        .where(
            DeploymentMember.device_id.in_(list(active)),
            DeploymentMember.state == "succeeded",
            DeploymentMember.deployment_id != deployment_id,
        )
        .order_by(DeploymentMember.deployment_id)
    )
    for device_id, deployment, release in db.execute(query):
        if release.sha256 == active[device_id]:
            found[device_id] = content_of(deployment, release)
    return found


def ask(context: Context, device_id: str, if_none_match: str = "", features: frozenset[str] = NONE) -> DesiredAnswer:
    """The desired state of a device; one row is read.

    Args:
        context: of the server.
        device_id: whose.
        if_none_match: ETags of the answers that the caller has.
        features: what the caller understands; another form of the same content has another ETag.

    Returns:
        The whole state; the caller of this function leaves out what ``features`` does not name.

    Raises:
        RequestRefused: 404.
    """
    now, poll_s = context.clock.now(), context.settings.poll_s
    columns = (Device.desired_generation, Device.desired_etag, Device.last_seen_at)
    with context.reading() as db:
        row = db.execute(select(*columns).where(Device.id == device_id)).first()
        if row is None:
            raise not_found(f"device {device_id}")
        form = "".join(f"-{f}" for f in sorted(used_features(DesiredState, features)))
        etag = f'"{row.desired_etag or "0"}-{poll_s:g}{form}"'
        same = _matches(if_none_match, etag)
        content = {} if same else db.scalars(select(Device.desired).where(Device.id == device_id)).one()
    if row.last_seen_at is None or (now - row.last_seen_at).total_seconds() >= _TOUCH_S:
        touch(context, device_id)
    if same:
        return DesiredAnswer(etag, None)
    return DesiredAnswer(
        etag,
        DesiredState.model_validate(
            {**NOTHING, **content, "device_id": device_id, "generation": row.desired_generation, "poll_s": poll_s}
        ),
    )


def touch(context: Context, device_id: str) -> None:
    """Store the time of the device's last contact."""
    now = context.clock.now()
    late = (Device.last_seen_at.is_(None)) | (Device.last_seen_at < now - timedelta(seconds=_TOUCH_S / 2))
    with context.sessions() as db:
        db.execute(update(Device).where(Device.id == device_id, late).values(last_seen_at=now))


def _matches(if_none_match: str, etag: str) -> bool:
    tags = [t.strip().removeprefix("W/") for t in if_none_match.split(",")]
    return etag in tags or "*" in tags
