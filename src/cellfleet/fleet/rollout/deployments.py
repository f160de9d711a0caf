"""Deployments: created, approved, halted, resumed and cancelled by operators and approvers; ``reconcile`` applies the rules.

Whoever changes a deployment holds its row first and then the rows of devices, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cellfleet.config.fleet import AgentSection
from cellfleet.fleet import audit, trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.refusals import bad_request, conflict, not_found
from cellfleet.fleet.rollout.membership import lock_devices
from cellfleet.fleet.rollout.reconcile import advance
from cellfleet.fleet.rollout.rules import first_state
from cellfleet.fleet.store.models import Deployment, DeploymentMember, Device, DeviceGroup, Release
from cellfleet.wire.reason import Reason, because, text_and_data, text_reason
from cellfleet.wire.rollout import LIVE, DeploymentRequest

SERVER = "server"
_BUSY_HINT = "wait for its end, or end it with `cellfleet deploy cancel`"
_PORTION = 400


def releases_of(db: Session, deployment_ids: Collection[int]) -> set[int]:
    """The releases that deployments carry."""
    return set(db.scalars(select(Deployment.release_id).where(Deployment.id.in_(deployment_ids))))


def find(db: Session, deployment_id: int, *, lock: bool = False) -> Deployment:
    """A deployment; with ``lock`` it is held by this transaction.

    Raises:
        RequestRefused: 404.
    """
    query = select(Deployment).where(Deployment.id == deployment_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found = db.scalars(query).one_or_none()
    if found is None:
        raise not_found(f"deployment {deployment_id}")
    return found


def create(db: Session, context: Context, person: Person, request: DeploymentRequest) -> Deployment:
    """Create a deployment of a release to a group; start it unless an approver must approve it first.

    Raises:
        RequestRefused: 403; 404 release or group; 409 ``release-withdrawn``, ``empty-group``, ``group-busy``, ``downgrade``;
            422 ``agent-settings``; 503 ``trust-keys``.
    """
    person.need("operator")
    release, group, devices = _checked(db, request)
    context.service(trust_repository.LoadedKeys).get()
    now = context.clock.now()
    made = Deployment(
        release_id=release.id,
        group_id=group.id,
        state=first_state(request).state,
        request=request.model_dump(mode="json"),
        phase=0,
        phase_since=now,
        created_by=person.name,
        created_at=now,
    )
    db.add(made)
    try:
        db.flush()
    except IntegrityError as e:
        raise conflict(
            "group-busy", f"another deployment of the group {group.name} has just started", hint=_BUSY_HINT
        ) from e
    db.add_all(
        DeploymentMember(deployment_id=made.id, device_id=d.id, state="waiting", reason="", update={}) for d in devices
    )
    db.flush()
    facts = {"what": f"{release.name} {release.version} to {group.name}", "release_id": release.id, "group": group.name}
    _record(db, context, person, "started", made, request.reason, **facts, devices=len(devices), request=made.request)
    advance(db, context, made)
    return made


def _checked(db: Session, request: DeploymentRequest) -> tuple[Release, DeviceGroup, list[Device]]:
    """What a request names, when it may be done; the group is held, so that two requests come one after the other."""
    release = db.get(Release, request.release_id)
    if release is None:
        raise not_found(f"release {request.release_id}")
    if release.withdrawn_at is not None:
        raise conflict("release-withdrawn", f"release {release.id} was withdrawn", hint="deploy another release")
    group = db.scalars(select(DeviceGroup).where(DeviceGroup.name == request.group).with_for_update()).one_or_none()
    if group is None:
        raise not_found(f"group {request.group}")
    _check_settings(request)
    busy = db.scalars(select(Deployment.id).where(Deployment.group_id == group.id, Deployment.state.in_(LIVE))).first()
    if busy is not None:
        raise conflict("group-busy", because("problem.group-busy", deployment=busy, group=group.name), hint=_BUSY_HINT)
    devices = lock_devices(db, group.id)
    if not devices:
        hint = "accept instruments into it with `cellfleet fleet accept --group`"
        raise conflict("empty-group", because("problem.group-empty", group=group.name), hint=hint)
    _check_downgrade(db, request, release, devices)
    return release, group, devices


def _check_settings(request: DeploymentRequest) -> None:
    try:
        AgentSection.model_validate(dict(request.agent))
    except ValidationError as e:
        errors = [{"where": f"agent.{'.'.join(map(str, x['loc']))}", "why": x["msg"]} for x in e.errors()]
        hint = "settings of section [agent] are listed in docs/cli.md"
        raise bad_request(
            "agent-settings", f"{errors[0]['where']}: {errors[0]['why']}", hint=hint, errors=errors
        ) from e


def _check_downgrade(db: Session, request: DeploymentRequest, release: Release, devices: Sequence[Device]) -> None:
    """A downgrade must be requested explicitly; each device also checks its signed allowance."""
    query = select(Release.sha256).where(
        Release.kind == release.kind, Release.name == release.name, Release.counter > release.counter
    )
    newer = set(db.scalars(query))
    ahead = [d.name for d in devices if d.active_sha256 in newer]
    if ahead and not request.allow_downgrade:
        raise conflict(
            "downgrade",
            f"{ahead[0]}{f' and {len(ahead) - 1} more' if len(ahead) > 1 else ''} run a newer release than {release.version}",
            hint="sign an allowance with `cellfleet trust allow` and deploy with --allow-downgrade",
        )


def approve(db: Session, context: Context, person: Person, deployment_id: int, reason: str = "") -> Deployment:
    """Approve the phase that waits.

    Raises:
        RequestRefused: 403, 404, 409 ``not-waiting``.
    """
    person.need("approver")
    d = find(db, deployment_id, lock=True)
    advance(db, context, d)
    if d.state != "awaiting-approval":
        raise conflict("not-waiting", f"deployment {d.id} is {d.state}; it waits for no approval")
    d.approved_by, d.approved_phase = person.name, d.phase
    d.state, d.phase_since = "running", context.clock.now()
    _record(db, context, person, "approved", d, reason, phase=d.phase + 1)
    advance(db, context, d)
    return d


def halt(db: Session, context: Context, person: Person, deployment_id: int, reason: str) -> Deployment:
    """Halt: the release is not offered to more devices; devices that have not activated it keep their version.

    Raises:
        RequestRefused: 403, 404, 409 ``not-running``.
    """
    person.need("operator")
    d = find(db, deployment_id, lock=True)
    if d.state not in ("running", "awaiting-approval"):
        raise conflict("not-running", f"deployment {d.id} is {d.state}")
    d.state, d.soak_since = "halted", None
    d.halted_reason, d.halted_data = text_and_data(_halted_by(person, reason))
    _record(db, context, person, "halted", d, reason)
    advance(db, context, d)
    return d


def _halted_by(person: Person, reason: str) -> Reason:
    if not reason:
        return because("rollout.halted-without", name=person.name)
    return because("rollout.halted-by", text_reason(reason), name=person.name)


def resume(db: Session, context: Context, person: Person, deployment_id: int, reason: str = "") -> Deployment:
    """Resume; failures before now no longer count against a threshold.

    Raises:
        RequestRefused: 403, 404, 409 ``not-halted``, ``release-withdrawn``.
    """
    person.need("operator")
    d = find(db, deployment_id, lock=True)
    if d.state != "halted":
        raise conflict("not-halted", f"deployment {d.id} is {d.state}")
    release = db.get(Release, d.release_id)
    if release is not None and release.withdrawn_at is not None:
        raise conflict("release-withdrawn", f"its release was withdrawn at {release.withdrawn_at:%Y-%m-%d %H:%M} UTC")
    d.state, d.resumed_at = "running", context.clock.now()
    d.halted_reason, d.halted_data = "", None
    d.phase_since = d.resumed_at
    _record(db, context, person, "resumed", d, reason)
    advance(db, context, d)
    return d


def cancel(db: Session, context: Context, person: Person, deployment_id: int, reason: str) -> Deployment:
    """Cancel; devices that have not activated the release keep their version.

    Raises:
        RequestRefused: 403, 404, 409 ``ended``.
    """
    person.need("operator")
    d = find(db, deployment_id, lock=True)
    if d.state not in LIVE:
        raise conflict("ended", f"deployment {d.id} is {d.state}")
    d.state, d.soak_since, d.ended_at = "cancelled", None, context.clock.now()
    _record(db, context, person, "cancelled", d, reason)
    advance(db, context, d)
    return d


def _record(
    db: Session, context: Context, person: Person, verb: str, d: Deployment, reason: str, /, **detail: Any
) -> None:
    audit.record(db, context, person.actor, f"deployment.{verb}", f"deployment:{d.id}", reason, **detail)
