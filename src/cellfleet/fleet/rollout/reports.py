"""Reports of devices. An inconsistent report raises an alarm and an audit event, never a crash.

A report is taken in one short transaction; when it changed a member of a deployment, the deployment is reconciled
in a second one, so that a failure halts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Caller
from cellfleet.fleet.provisioning import alarms
from cellfleet.fleet.provisioning.alarms import ACTIVE, CLOCK, COUNTERS, TWO_MACHINES, UPDATE
from cellfleet.fleet.refusals import conflict, forbidden
from cellfleet.fleet.rollout.deployments import releases_of
from cellfleet.fleet.rollout.membership import is_activated
from cellfleet.fleet.rollout.reconcile import reconcile
from cellfleet.fleet.store.models import DeploymentMember, Device, Release
from cellfleet.wire.reason import Reason, because, english, read_reason, text_and_data
from cellfleet.wire.rollout import ENDED
from cellfleet.wire.states import Counters, ReportedState, UpdateReport

_MAX_CLOCK_OFF_S = 86400.0
_FINAL = tuple(s for s in ENDED if s != "silent")
_STATE_OF = {"running": "updating", "deferred": "deferred"}


@dataclass(frozen=True)
class ReportJudgement:
    """The result of checking a report.

    Attributes:
        stale: not newer than the one that is stored; it is ignored.
        refused: it comes from a second machine with this key.
        alarms: name -> reason, of this report.
        clears: names of alarms that this report ends.
    """

    stale: bool = False
    refused: bool = False
    alarms: Mapping[str, Reason] = field(default_factory=dict)
    clears: tuple[str, ...] = ()


def judge(
    stored: Mapping[str, Any], sequence: int, boot_id: str, report: ReportedState, now: datetime
) -> ReportJudgement:
    """Compare a report with the previous report. Pure.

    Args:
        stored: the report before, as plain data; empty: there was none.
        sequence, boot_id: of the report before.
        now: the server's clock.
    """
    if report.sequence <= sequence:
        if report.boot_id == boot_id:
            return ReportJudgement(stale=True)
        starts = {"boot": report.boot_id, "last_boot": boot_id}
        reason = because("alarm.two-machines", sequence=report.sequence, last=sequence, **starts)
        return ReportJudgement(stale=True, refused=True, alarms={TWO_MACHINES: reason})
    found: dict[str, Reason] = {}
    before = Counters.model_validate(stored.get("counters") or {})
    for name in ("taken", "stored") if _segments_again(report) else ("taken", "stored", "segmented"):
        was, now_is = getattr(before, name), getattr(report.counters, name)
        if now_is < was:
            found[COUNTERS] = because("alarm.counters", now=now_is, counter=name, before=was)
    off_s = (report.at - now).total_seconds()
    if abs(off_s) > _MAX_CLOCK_OFF_S:
        hours = abs(off_s) / 3600
        found[CLOCK] = because("alarm.clock-ahead" if off_s > 0 else "alarm.clock-behind", hours=hours)
    return ReportJudgement(alarms=found, clears=(CLOCK,) if CLOCK not in found else ())


def _segments_again(report: ReportedState) -> bool:
    """After a rollback, masks of the bad version do not count until its frames are segmented again."""
    return report.state == "rolling-back" or (report.update is not None and report.update.outcome == "rolled-back")


def take(context: Context, caller: Caller, report: ReportedState) -> None:
    """Take a report.

    Raises:
        RequestRefused: 403 ``other-device``, 409 ``two-machines``; both are noted first.
    """
    if report.device_id != caller.device_id:
        with context.sessions() as db:
            reason = because("audit.reports-as", device=report.device_id)
            audit.record(db, context, caller.actor, "device.report-refused", f"device:{caller.device_id}", reason)
        raise forbidden("this report is about another device", code="other-device", hint="report as the token's device")
    moved: list[int] = []
    with context.sessions() as db:
        device = db.scalars(select(Device).where(Device.id == caller.device_id).with_for_update()).one()
        now = context.clock.now()
        judged = judge(device.reported, device.reported_sequence, device.boot_id, report, now)
        device.last_seen_at = now
        if not judged.stale:
            judged = _take(db, context, device, report, judged, moved)
        alarms.note(db, context, device, judged.alarms, judged.clears)
    for deployment_id in moved:
        reconcile(context, deployment_id)
    if judged.refused:
        raise conflict(
            TWO_MACHINES,
            english(judged.alarms[TWO_MACHINES]),
            hint="provision the second machine with its own key",
        )


def _take(
    db: Session, context: Context, device: Device, report: ReportedState, judged: ReportJudgement, moved: list[int]
) -> ReportJudgement:
    device.reported = report.model_dump(mode="json")
    device.reported_sequence, device.boot_id = report.sequence, report.boot_id
    device.facts = report.facts.model_dump(mode="json")
    device.active_sha256 = report.active.sha256 if report.active else ""
    db.flush()
    raised, clears = dict(judged.alarms), list(judged.clears)
    members = {
        m.deployment_id: m
        for m in db.scalars(select(DeploymentMember).where(DeploymentMember.device_id == device.id).with_for_update())
    }
    if reason := _active_problem(db, report, members):
        raised[ACTIVE] = reason
    else:
        clears.append(ACTIVE)
    if reason := _move(db, context, report, members, moved):
        raised[UPDATE] = reason
    else:
        clears.append(UPDATE)
    moved += _already_there(context, device, report, members)
    return ReportJudgement(judged.stale, judged.refused, raised, tuple(clears))


def _active_problem(db: Session, report: ReportedState, members: Mapping[int, DeploymentMember]) -> Reason | None:
    """What it runs was never offered to it."""
    if report.active is None:
        return None
    runs = {"name": report.active.name, "version": report.active.version, "sha256": report.active.sha256[:12]}
    release = db.scalars(select(Release).where(Release.sha256 == report.active.sha256)).one_or_none()
    if release is None:
        return because("alarm.not-published", **runs)
    deployed = {m.deployment_id for m in members.values() if m.offered_at is not None}
    if deployed and release.id in releases_of(db, deployed):
        return None
    return because("alarm.not-offered", **runs)


def _move(
    db: Session,
    context: Context,
    report: ReportedState,
    members: Mapping[int, DeploymentMember],
    moved: list[int],
) -> Reason | None:
    """Bring the device's place in a deployment up to date; what is wrong with its claim."""
    update = report.update
    if update is None or update.deployment_id is None:
        return None
    member = members.get(update.deployment_id)
    if member is None or member.offered_at is None:
        return because("alarm.unknown-deployment", deployment=update.deployment_id)
    wanted_release = next(iter(releases_of(db, {update.deployment_id})), None)
    if update.release_id is not None and update.release_id != wanted_release:
        named = {"release": update.release_id, "deployment": update.deployment_id}
        return because("alarm.other-release", wanted=str(wanted_release), **named)
    if reason := _not_true(db, report, update, wanted_release):
        return reason
    if member.state in _FINAL:
        if member.state == update.outcome:
            member.update = update.model_dump(mode="json")  # numbers that are known later, such as the time of recovery
        return None
    _set(member, update, context.clock.now())
    moved.append(update.deployment_id)
    return None


def _not_true(db: Session, report: ReportedState, update: UpdateReport, release_id: int | None) -> Reason | None:
    """It reports that it succeeded, and runs something else."""
    if update.outcome != "succeeded" or release_id is None or report.state != "idle":
        return None
    release = db.get(Release, release_id)
    if release is None or (report.active is not None and report.active.sha256 == release.sha256):
        return None
    deployment = update.deployment_id or 0
    if report.active is None:
        return because("alarm.nothing-active", deployment=deployment)
    name, version = report.active.name, report.active.version
    return because("alarm.not-succeeded", deployment=deployment, name=name, version=version)


def _set(member: DeploymentMember, update: UpdateReport, now: datetime) -> None:
    state, stored = _STATE_OF.get(update.outcome, update.outcome), update.model_dump(mode="json")
    if state == "updating" and member.state == "waiting" and not is_activated(stored):
        member.update = stored  # it was withdrawn, and will see so when it polls next
        return
    member.state, member.update = state, stored
    member.reason, member.reason_data = text_and_data(read_reason(update.reason, update.reason_data))
    member.ended_at = now if state in ENDED else None


def _already_there(
    context: Context,
    device: Device,
    report: ReportedState,
    members: Mapping[int, DeploymentMember],
) -> list[int]:
    """Silent members that report again, and members that already run the offered release."""
    out = []
    offered = (device.desired or {}).get("deployment_id")
    for member in members.values():
        if member.state == "silent":
            member.state, member.ended_at = ("offered" if member.deployment_id == offered else "waiting"), None
            member.reason, member.reason_data = "", None
            out.append(member.deployment_id)
        if member.state != "offered" or member.deployment_id != offered or report.state != "idle":
            continue
        reported = report.update is not None and report.update.deployment_id == member.deployment_id
        wanted = (device.desired.get("release") or {}).get("sha256")
        if not reported and report.generation >= device.desired_generation and device.active_sha256 == wanted:
            member.state, member.ended_at = "succeeded", context.clock.now()
            member.reason, member.reason_data = text_and_data(because("rollout.ran-already"))
            out.append(member.deployment_id)
    return out
