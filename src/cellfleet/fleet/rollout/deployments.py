"""Deployments: made, approved, halted, resumed and cancelled by people; carried on by ``look``, which follows the rules.

Whoever changes a deployment holds its row first and then the rows of devices, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from cellfleet.config.fleet import AgentSection
from cellfleet.fleet import audit, trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.refusals import bad_request, conflict, not_found
from cellfleet.fleet.rollout import desired
from cellfleet.fleet.rollout.rules import (
    RolloutDecision,
    RolloutState,
    decide,
    first_state,
    has_activated,
)
from cellfleet.fleet.store.models import Deployment, DeploymentMember, Device, DeviceGroup, Release
from cellfleet.wire.rollout import LIVE, DeploymentRequest, Member

SERVER = "server"
_UNDER_WAY = ("offered", "updating", "deferred")
_BUSY_HINT = "wait for its end, or end it with `cellfleet deploy cancel`"
_PORTION = 400


@dataclass
class Membership:
    """The members of a deployment with their devices."""

    pairs: list[tuple[DeploymentMember, Device]]

    @property
    def devices(self) -> dict[str, Device]:
        return {d.id: d for _, d in self.pairs}

    @property
    def members(self) -> dict[str, DeploymentMember]:
        return {d.id: m for m, d in self.pairs}

    def as_seen(self) -> list[Member]:
        """As the rules see them."""
        return [
            Member(
                device_id=d.id,
                name=d.name,
                state=m.state,  # type: ignore[arg-type]
                phase=m.phase,
                offered_at=m.offered_at,
                ended_at=m.ended_at,
                heard_at=d.last_seen_at,
                reason=m.reason[:2000],
            )
            for m, d in self.pairs
        ]


def is_activated(update: Mapping[str, Any]) -> bool:
    """An update (as stored) that has switched the device, or is switching it."""
    return has_activated(str(update.get("state", "")))


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
    """Aim a release at a group and begin, unless a person must approve it first.

    Raises:
        RequestRefused: 403; 404 release or group; 409 ``release-withdrawn``, ``empty-group``, ``group-busy``, ``downgrade``;
            422 ``agent-settings``; 503 ``trust-keys``.
    """
    person.need("operator")
    release, group, devices = _checked(db, request)
    context.service(trust_repository.Keys).get()
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
            "group-busy", f"another deployment of the group {group.name} has just begun", hint=_BUSY_HINT
        ) from e
    db.add_all(
        DeploymentMember(deployment_id=made.id, device_id=d.id, state="waiting", reason="", update={}) for d in devices
    )
    db.flush()
    facts = {"what": f"{release.name} {release.version} to {group.name}", "release_id": release.id, "group": group.name}
    _record(db, context, person, "started", made, request.reason, **facts, devices=len(devices), request=made.request)
    _advance(db, context, made)
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
        raise conflict("group-busy", f"deployment {busy} of the group {group.name} has not ended", hint=_BUSY_HINT)
    devices = _devices_of(db, group.id)
    if not devices:
        hint = "accept instruments into it with `cellfleet fleet accept --group`"
        raise conflict("empty-group", f"the group {group.name} has no accepted instrument", hint=hint)
    _check_downgrade(db, request, release, devices)
    return release, group, devices


def _devices_of(db: Session, group_id: int, but_not: Collection[str] = ()) -> list[Device]:
    query = select(Device).where(Device.group_id == group_id, Device.state == "accepted").order_by(Device.id)
    query = query.options(defer(Device.reported), defer(Device.facts)).execution_options(populate_existing=True)
    return [x for x in db.scalars(query.with_for_update()) if x.id not in but_not]


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
    """Going back is asked for in words; that it is allowed, each device checks by a signed allowance."""
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
    """Say yes to the phase that waits.

    Raises:
        RequestRefused: 403, 404, 409 ``not-waiting``.
    """
    person.need("approver")
    d = find(db, deployment_id, lock=True)
    _advance(db, context, d)
    if d.state != "awaiting-approval":
        raise conflict("not-waiting", f"deployment {d.id} is {d.state}; it waits for no approval")
    d.approved_by, d.approved_phase = person.name, d.phase
    d.state, d.phase_since = "running", context.clock.now()
    _record(db, context, person, "approved", d, reason, phase=d.phase + 1)
    _advance(db, context, d)
    return d


def halt(db: Session, context: Context, person: Person, deployment_id: int, reason: str) -> Deployment:
    """Stop: nobody else is offered the release; devices that have not activated it keep what they have.

    Raises:
        RequestRefused: 403, 404, 409 ``not-running``.
    """
    person.need("operator")
    d = find(db, deployment_id, lock=True)
    if d.state not in ("running", "awaiting-approval"):
        raise conflict("not-running", f"deployment {d.id} is {d.state}")
    d.state, d.soak_since, d.halted_reason = "halted", None, f"{person.name}: {reason}".rstrip(": ")
    _record(db, context, person, "halted", d, reason)
    _advance(db, context, d)
    return d


def resume(db: Session, context: Context, person: Person, deployment_id: int, reason: str = "") -> Deployment:
    """Go on; failures up to now count against no threshold any more.

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
    d.state, d.halted_reason, d.resumed_at = "running", "", context.clock.now()
    d.phase_since = d.resumed_at
    _record(db, context, person, "resumed", d, reason)
    _advance(db, context, d)
    return d


def cancel(db: Session, context: Context, person: Person, deployment_id: int, reason: str) -> Deployment:
    """End it as it stands; devices that have not activated the release keep what they have.

    Raises:
        RequestRefused: 403, 404, 409 ``ended``.
    """
    person.need("operator")
    d = find(db, deployment_id, lock=True)
    if d.state not in LIVE:
        raise conflict("ended", f"deployment {d.id} is {d.state}")
    d.state, d.soak_since, d.ended_at = "cancelled", None, context.clock.now()
    _record(db, context, person, "cancelled", d, reason)
    _advance(db, context, d)
    return d


def _record(
    db: Session, context: Context, person: Person, verb: str, d: Deployment, reason: str, /, **detail: Any
) -> None:
    audit.record(db, context, person.actor, f"deployment.{verb}", f"deployment:{d.id}", reason, **detail)


def reconcile(context: Context, deployment_id: int) -> None:
    """Do what is due in a deployment now. Looking once more, here or in another replica, does nothing more."""
    with context.sessions() as db:
        _advance(db, context, find(db, deployment_id, lock=True))


def live_ids(db: Session) -> Sequence[int]:
    """Deployments that have not ended."""
    return db.scalars(select(Deployment.id).where(Deployment.state.in_(LIVE)).order_by(Deployment.id)).all()


def _advance(db: Session, context: Context, d: Deployment) -> None:
    request = DeploymentRequest.model_validate(d.request)
    crew = _crew(db, d)
    left: list[Device] = []
    if d.state in ("running", "awaiting-approval"):
        crew, left = _join_and_leave(db, context, d, crew)
    for _ in range(2 * len(request.phases) + 2):
        step = decide(request, _standing(d), crew.as_seen(), context.clock.now())
        _apply(db, context, d, crew, step)
        if not step.offer and not step.silent:
            break
    _reconcile(db, context, d, crew, left)


def _crew(db: Session, d: Deployment) -> Membership:
    """The members, whose devices are held first: what a report wrote while we waited for its device is then seen, too."""
    ids = select(DeploymentMember.device_id).where(DeploymentMember.deployment_id == d.id)
    db.execute(select(Device.id).where(Device.id.in_(ids)).order_by(Device.id).with_for_update()).all()
    query = (
        select(DeploymentMember, Device)
        .join(Device, Device.id == DeploymentMember.device_id)
        .where(DeploymentMember.deployment_id == d.id)
        .order_by(Device.id)
        .options(defer(Device.reported), defer(Device.facts), defer(Device.public_key))
        .execution_options(populate_existing=True)
    )
    return Membership([(m, device) for m, device in db.execute(query)])


def _standing(d: Deployment) -> RolloutState:
    return RolloutState(d.state, d.phase, d.approved_phase, d.soak_since, d.resumed_at)  # type: ignore[arg-type]


def _join_and_leave(db: Session, context: Context, d: Deployment, crew: Membership) -> tuple[Membership, list[Device]]:
    """Devices that came into the group wait too; those that left it, or the fleet, are no members unless they ended."""
    known = crew.devices
    here = db.scalars(select(Device.id).where(Device.group_id == d.group_id, Device.state == "accepted"))
    new = _devices_of(db, d.group_id, but_not=set(known)) if any(i not in known for i in here) else []
    gone = [
        (m, x)
        for m, x in crew.pairs
        if (x.group_id != d.group_id or x.state != "accepted") and m.state in ("waiting", *_UNDER_WAY, "silent")
    ]
    if not new and not gone:
        return crew, []
    for m, _ in gone:
        db.delete(m)
    added = [DeploymentMember(deployment_id=d.id, device_id=x.id, state="waiting", reason="", update={}) for x in new]
    db.add_all(added)
    names = {"joined": sorted(x.name for x in new), "left": sorted(x.name for _, x in gone)}
    audit.record(db, context, SERVER, "deployment.members-changed", f"deployment:{d.id}", "the group changed", **names)
    db.flush()
    left = {x.id for _, x in gone}
    return Membership([*((m, x) for m, x in crew.pairs if x.id not in left), *zip(added, new, strict=True)]), [
        x for _, x in gone
    ]


def _apply(db: Session, context: Context, d: Deployment, crew: Membership, step: RolloutDecision) -> None:
    """Write what the rules decided. Members move here and in ``reports`` alone."""
    now, members, devices = context.clock.now(), crew.members, crew.devices
    for device_id, reason in step.silent:
        member = members[device_id]
        member.state, member.ended_at, member.reason = "silent", now, reason
        _note(db, context, d, "member-silent", f"{devices[device_id].name}: {reason}", device=device_id)
    _apply_standing(db, context, d, step)
    for device_id in step.offer:
        member = members[device_id]
        member.state, member.phase, member.offered_at, member.ended_at = "offered", step.standing.phase, now, None
        member.reason, member.update = "", {}
    if step.offer:
        names = [devices[i].name for i in step.offer]
        _note(db, context, d, "offered", "", phase=step.standing.phase + 1, devices=names)


def _apply_standing(db: Session, context: Context, d: Deployment, step: RolloutDecision) -> None:
    now, standing = context.clock.now(), step.standing
    if standing.phase != d.phase:
        d.phase, d.phase_since = standing.phase, now
        _note(db, context, d, "phase", f"phase {standing.phase + 1} begins", phase=standing.phase + 1)
    d.soak_since = standing.soak_since
    if standing.state == d.state:
        return
    d.state = standing.state
    if standing.state == "halted":
        d.halted_reason = step.reason
        _note(db, context, d, "halted", step.reason, automatic=True)
    elif standing.state == "succeeded":
        d.ended_at = now
        _note(db, context, d, "succeeded", "")
    elif standing.state == "awaiting-approval":
        _note(db, context, d, "awaits-approval", step.waits_for, phase=standing.phase + 1)


def _note(db: Session, context: Context, d: Deployment, what: str, reason: str, **detail: Any) -> None:
    audit.record(db, context, SERVER, f"deployment.{what}", f"deployment:{d.id}", reason, **detail)


def _reconcile(db: Session, context: Context, d: Deployment, crew: Membership, left: Sequence[Device]) -> None:
    """Make the desired states follow: who has not activated a halted release keeps what it has."""
    release = db.get(Release, d.release_id)
    assert release is not None
    moving, stopped = desired.content_of(d, release), d.state in ("halted", "cancelled")
    give: list[tuple[Device, Mapping[str, Any]]] = []
    take: list[Device] = [x for x in left if _owner(x) == d.id]
    withdrawn = []
    for m, device in crew.pairs:
        if stopped and m.state in _UNDER_WAY and not is_activated(m.update):
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
            "these have not activated it and keep what they have",
            devices=sorted(withdrawn),
        )
    db.flush()
    back: dict[str, Mapping[str, Any]] = {}
    for at in range(0, len(take), _PORTION):
        back |= desired.before(db, take[at : at + _PORTION], d.id)
    desired.change(db, context, [*give, *((x, back[x.id]) for x in take)])


def _owner(device: Device) -> int | None:
    found: int | None = (device.desired or {}).get("deployment_id")
    return found


def _is_wanted(d: Deployment, m: DeploymentMember) -> bool:
    if m.state in ("succeeded", *_UNDER_WAY):
        return True
    return m.state == "silent" and (d.state in ("running", "awaiting-approval") or is_activated(m.update))


def waits_for(db: Session, context: Context, d: Deployment) -> str:
    """What has to happen next, in words; empty when it has ended or is halted. Reads only."""
    if d.state not in ("running", "awaiting-approval"):
        return ""
    query = select(DeploymentMember, Device).join(Device, Device.id == DeploymentMember.device_id)
    slim = query.options(defer(Device.reported), defer(Device.facts), defer(Device.public_key))
    crew = Membership([(m, x) for m, x in db.execute(slim.where(DeploymentMember.deployment_id == d.id))])
    return decide(
        DeploymentRequest.model_validate(d.request), _standing(d), crew.as_seen(), context.clock.now()
    ).waits_for
