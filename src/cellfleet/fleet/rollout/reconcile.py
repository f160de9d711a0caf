"""One decision of a deployment: the rules decide, members and desired states follow.

``reconcile`` runs with every tick and after a report that moved a member; a second call at the same time changes nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.rollout import desired_state
from cellfleet.fleet.rollout.membership import (
    SERVER,
    UNDER_WAY,
    Membership,
    is_activated,
    join_and_leave,
    lock_members,
    read_members,
)
from cellfleet.fleet.rollout.rules import RolloutDecision, RolloutState, decide
from cellfleet.fleet.store.models import Deployment, DeploymentMember, Device, Release
from cellfleet.wire.reason import Reason, because, text_and_data
from cellfleet.wire.rollout import LIVE, DeploymentRequest

_PORTION = 400


def live_ids(db: Session) -> Sequence[int]:
    """Deployments that have not ended."""
    return db.scalars(select(Deployment.id).where(Deployment.state.in_(LIVE)).order_by(Deployment.id)).all()


def reconcile(context: Context, deployment_id: int) -> None:
    """Do what is due in a deployment now, in its own transaction.

    Args:
        context: the server.
        deployment_id: the deployment; nothing happens when it is not there.
    """
    query = select(Deployment).where(Deployment.id == deployment_id).with_for_update()
    with context.sessions() as db:
        d = db.scalars(query.execution_options(populate_existing=True)).one_or_none()
        if d is not None:
            advance(db, context, d)


def advance(db: Session, context: Context, d: Deployment) -> None:
    """Do what is due in a deployment now, in the caller's transaction.

    Args:
        db, context: transaction and server.
        d: the deployment, whose row the caller holds.
    """
    request = DeploymentRequest.model_validate(d.request)
    membership = lock_members(db, d)
    left: list[Device] = []
    if d.state in ("running", "awaiting-approval"):
        membership, left = join_and_leave(db, context, d, membership)
    for _ in range(2 * len(request.phases) + 2):
        decision = decide(request, _rollout_of(d), membership.as_seen(), context.clock.now())
        _apply(db, context, d, membership, decision)
        if not decision.offer and not decision.silent:
            break
    _follow(db, context, d, membership, left)


def _rollout_of(d: Deployment) -> RolloutState:
    return RolloutState(d.state, d.phase, d.approved_phase, d.soak_since, d.resumed_at)  # type: ignore[arg-type]


def _apply(db: Session, context: Context, d: Deployment, membership: Membership, decision: RolloutDecision) -> None:
    """Write what the rules decided. Only this and ``reports`` change the state of a member."""
    now, members, devices = context.clock.now(), membership.members, membership.devices
    for device_id, reason in decision.silent:
        member = members[device_id]
        member.state, member.ended_at = "silent", now
        member.reason, member.reason_data = text_and_data(reason)
        silent = because("rollout.member-silent", reason, name=devices[device_id].name)
        _note(db, context, d, "member-silent", silent, device=device_id)
    _apply_rollout(db, context, d, decision)
    for device_id in decision.offer:
        member = members[device_id]
        member.state, member.phase, member.offered_at, member.ended_at = "offered", decision.rollout.phase, now, None
        member.reason, member.reason_data, member.update = "", None, {}
    if decision.offer:
        names = [devices[i].name for i in decision.offer]
        _note(db, context, d, "offered", None, phase=decision.rollout.phase + 1, devices=names)


def _apply_rollout(db: Session, context: Context, d: Deployment, decision: RolloutDecision) -> None:
    now, rollout = context.clock.now(), decision.rollout
    if rollout.phase != d.phase:
        d.phase, d.phase_since = rollout.phase, now
        number = rollout.phase + 1
        _note(db, context, d, "phase", because("rollout.phase", phase=number), phase=number)
    d.soak_since = rollout.soak_since
    if rollout.state == d.state:
        return
    d.state = rollout.state
    if rollout.state == "halted":
        d.halted_reason, d.halted_data = text_and_data(decision.reason)
        _note(db, context, d, "halted", decision.reason, automatic=True)
    elif rollout.state == "succeeded":
        d.ended_at = now
        _note(db, context, d, "succeeded", None)
    elif rollout.state == "awaiting-approval":
        _note(db, context, d, "awaits-approval", decision.waits_for, phase=rollout.phase + 1)


def _note(db: Session, context: Context, d: Deployment, what: str, reason: Reason | None, **detail: Any) -> None:
    audit.record(db, context, SERVER, f"deployment.{what}", f"deployment:{d.id}", reason or "", **detail)


def _follow(db: Session, context: Context, d: Deployment, membership: Membership, left: Sequence[Device]) -> None:
    """Update the desired states: devices that have not activated a halted release keep their version."""
    release = db.get(Release, d.release_id)
    assert release is not None
    moving, stopped = desired_state.content_of(d, release), d.state in ("halted", "cancelled")
    give: list[tuple[Device, Mapping[str, Any]]] = []
    take: list[Device] = [x for x in left if _owner(x) == d.id]
    withdrawn = []
    for m, device in membership.pairs:
        if stopped and m.state in UNDER_WAY and not is_activated(m.update):
            m.state, m.ended_at = "waiting", None
            withdrawn.append(device.name)
        if _is_wanted(d, m):
            if _owner(device) != d.id and (not stopped or (_owner(device) or 0) < d.id) and d.state != "succeeded":
                give.append((device, moving))
        elif _owner(device) == d.id:
            take.append(device)
    if withdrawn:
        _note(
            db,
            context,
            d,
            "withdrawn",
            because("rollout.withdrawn"),
            devices=sorted(withdrawn),
        )
    db.flush()
    back: dict[str, Mapping[str, Any]] = {}
    for at in range(0, len(take), _PORTION):
        back |= desired_state.before(db, take[at : at + _PORTION], d.id)
    desired_state.change(db, context, [*give, *((x, back[x.id]) for x in take)])


def _owner(device: Device) -> int | None:
    found: int | None = (device.desired or {}).get("deployment_id")
    return found


def _is_wanted(d: Deployment, m: DeploymentMember) -> bool:
    if m.state in ("succeeded", *UNDER_WAY):
        return True
    return m.state == "silent" and (d.state in ("running", "awaiting-approval") or is_activated(m.update))


def waits_for(db: Session, context: Context, d: Deployment) -> Reason | None:
    """What has to happen next; None when it has ended or is halted. Reads only."""
    if d.state not in ("running", "awaiting-approval"):
        return None
    members, request = read_members(db, d.id).as_seen(), DeploymentRequest.model_validate(d.request)
    return decide(request, _rollout_of(d), members, context.clock.now()).waits_for
