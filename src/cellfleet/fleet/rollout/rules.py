"""The rules of a deployment: request, rollout, members and time in; what to do next out. Pure, so that a server that was
restarted at any moment decides the same again.

- A phase offers the release to devices in the order of their names until as many of *all* devices have it as its count
  or percent says; the last phase takes all remaining devices. The maintenance window is kept by the devices: they may download
  before it.
- Failures are refused, failed, rolled back and silent. Up to ``max_failures`` of a phase are tolerated. Beyond that the
  deployment halts, unless ``max_failure_percent`` is given: then it halts once ``min_ended`` devices of the phase (or
  all of them) have ended and the failures among them are more than that.
- A phase is passed when ``min_success_percent`` of its devices have succeeded (100: all but the tolerated failures, and at
  least one), and ``soak_s`` have gone by since then without a failure. It halts when so many can no longer succeed.
- Failures that ended before an operator resumed the deployment do not count.
- The deployment has succeeded when the last phase is passed and every device has ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cellfleet.wire.reason import Reason, because
from cellfleet.wire.rollout import ENDED, FAILURES, DeploymentRequest, DeploymentState, Member, Phase

_ACTIVATED = frozenset({"activating", "probation", "committing", "rolling-back"})
_FAILED = {
    "refused": "rollout.member-refused",
    "failed": "rollout.member-failed",
    "rolled-back": "rollout.member-rolled-back",
    "silent": "rollout.member-silent",
}
_EPSILON = 1e-9


@dataclass(frozen=True)
class RolloutState:
    """The state of a deployment, apart from its members.

    Attributes:
        phase: index of the phase that runs, or that waits for approval.
        approved_phase: phases up to this index were approved by an approver.
        soak_since: since when the phase is waited out; None: it is not passed yet.
        resumed_at: failures before it were accepted by an operator, who resumed the deployment.
    """

    state: DeploymentState
    phase: int = 0
    approved_phase: int = -1
    soak_since: datetime | None = None
    resumed_at: datetime | None = None


@dataclass(frozen=True)
class RolloutDecision:
    """What is to be done: the new rollout, who is silent, who is offered the release.

    Attributes:
        silent: device id, and why it counts as a failure.
        offer: device ids, in order; they belong to ``rollout.phase``.
        reason: why it halts; None when it does not.
        waits_for: what has to happen next; None: nothing.
    """

    rollout: RolloutState
    silent: tuple[tuple[str, Reason], ...] = ()
    offer: tuple[str, ...] = ()
    reason: Reason | None = None
    waits_for: Reason | None = None


def first_state(request: DeploymentRequest) -> RolloutState:
    """The initial state of a deployment."""
    return RolloutState("awaiting-approval" if needs_approval(request, 0) else "running")


def needs_approval(request: DeploymentRequest, phase: int) -> bool:
    """An approver must approve this phase before it begins."""
    return request.phases[phase].approval or (phase == 0 and request.needs_approval)


def in_order(members: Sequence[Member]) -> list[Member]:
    """Members in the order in which they are offered a release."""
    return sorted(members, key=lambda m: (m.name, m.device_id))


def target_size(request: DeploymentRequest, phase: int, devices: int) -> int:
    """How many of all devices are offered the release in the end of a phase; never fewer than in the phase before."""
    if phase >= len(request.phases) - 1:
        return devices
    return max(_size(p, devices) for p in request.phases[: phase + 1])


def _size(phase: Phase, devices: int) -> int:
    if phase.count is not None:
        return min(phase.count, devices)
    return math.ceil(devices * (phase.percent or 0) / 100 - _EPSILON)


def decide(
    request: DeploymentRequest, rollout: RolloutState, members: Sequence[Member], now: datetime
) -> RolloutDecision:
    """What is to be done now. The same arguments give the same decision; a decision that changes nothing has the same state.

    Args:
        request: the request of the deployment.
        rollout: as the last decision left it.
        members: all devices of the deployment.
        now: the server's clock.
    """
    if rollout.state not in ("running", "awaiting-approval"):
        return RolloutDecision(rollout)
    silent = _silent(request, members, now)
    gone = dict(silent)
    members = [
        m.model_copy(update={"state": "silent", "ended_at": now, "reason": gone[m.device_id]})
        if m.device_id in gone
        else m
        for m in members
    ]
    if reason := _why_halt(request, rollout, members):
        return RolloutDecision(replace(rollout, state="halted", soak_since=None), silent, reason=reason)
    return replace(_go_on(request, rollout, members, now), silent=silent)


def _go_on(
    request: DeploymentRequest, rollout: RolloutState, members: Sequence[Member], now: datetime
) -> RolloutDecision:
    """Offer, wait, soak, go to the next phase, as far as possible now."""
    while True:
        number, at = rollout.phase + 1, rollout.phase
        if needs_approval(request, at) and rollout.approved_phase < at:
            approval = because("rollout.approval", phase=number)
            return RolloutDecision(replace(rollout, state="awaiting-approval"), waits_for=approval)
        rollout = replace(rollout, state="running")
        waiting = [m for m in in_order(members) if m.state == "waiting"]
        lacking = target_size(request, at, len(members)) - (len(members) - len(waiting))
        if lacking > 0:
            offer = tuple(m.device_id for m in waiting[:lacking])
            then = [
                m.model_copy(update={"state": "offered", "phase": at}) if m.device_id in offer else m for m in members
            ]
            return RolloutDecision(
                replace(rollout, soak_since=None), offer=offer, waits_for=_progress(request, rollout, then)
            )
        passed_at = _passed_at(request, rollout, members, now)
        if passed_at is None:
            return RolloutDecision(replace(rollout, soak_since=None), waits_for=_progress(request, rollout, members))
        until = passed_at + timedelta(seconds=request.phases[at].soak_s)
        if now < until:
            soak = because("rollout.soak", phase=number, until=f"{until:%Y-%m-%d %H:%M:%S}")
            return RolloutDecision(replace(rollout, soak_since=passed_at), waits_for=soak)
        if at == len(request.phases) - 1:
            return RolloutDecision(replace(rollout, state="succeeded", soak_since=passed_at))
        rollout = replace(rollout, phase=at + 1, soak_since=None)


def _silent(request: DeploymentRequest, members: Sequence[Member], now: datetime) -> tuple[tuple[str, Reason], ...]:
    out = []
    for m in in_order(members):
        if m.state in ENDED or m.state == "waiting" or m.phase is None or m.offered_at is None:
            continue
        patience_s = request.phases[m.phase].silent_after_s
        heard = max(m.offered_at, m.heard_at or m.offered_at)
        if (now - heard).total_seconds() > patience_s:
            reason = because("rollout.silent", since=f"{heard:%Y-%m-%d %H:%M:%S}", limit_s=patience_s)
            out.append((m.device_id, reason))
    return tuple(out)


def _counts(m: Member, rollout: RolloutState) -> bool:
    """A member of a phase that counts for its thresholds: not withdrawn, and not a failure from before the last resume."""
    if m.state == "waiting":
        return False
    forgiven = rollout.resumed_at is not None and m.ended_at is not None and m.ended_at <= rollout.resumed_at
    return not (m.state in FAILURES and forgiven)


def _why_halt(request: DeploymentRequest, rollout: RolloutState, members: Sequence[Member]) -> Reason | None:
    if not members:
        return because("rollout.empty")
    for index in range(rollout.phase + 1):
        phase = request.phases[index]
        own = [m for m in in_order(members) if m.phase == index and _counts(m, rollout)]
        failed = [m for m in own if m.state in FAILURES]
        ended = [m for m in own if m.state in ENDED]
        if own and _too_many(phase, len(failed), len(ended), len(own)):
            return _too_many_failures(phase, index, failed, len(ended))
        hopeful = len(own) - len(failed)
        if own and hopeful < (needed := _needed(phase, len(own), len(failed))):
            first, number, size = _first_failure(failed), index + 1, len(own)
            return because("rollout.halt-hopeless", first, phase=number, hopeful=hopeful, size=size, needed=needed)
    return None


def _too_many(phase: Phase, failed: int, ended: int, size: int) -> bool:
    if failed <= phase.max_failures:
        return False
    if phase.max_failure_percent is None:
        return True
    return ended >= min(phase.min_ended, size) and 100 * failed / ended > phase.max_failure_percent + _EPSILON


def _needed(phase: Phase, size: int, failed: int) -> int:
    """How many of a phase's devices must succeed."""
    if size == 0 or phase.min_success_percent == 0:
        return 0
    if phase.min_success_percent == 100:
        return max(1, size - failed)
    return max(1, math.ceil(size * phase.min_success_percent / 100 - _EPSILON))


def _first_failure(failed: Sequence[Member]) -> Reason:
    """What the first member that failed reported."""
    first = min(failed, key=lambda m: (m.ended_at is None, m.ended_at, m.name, m.device_id))
    reason = first.reason or because("rollout.no-reason")
    return because(_FAILED[first.state], reason, name=first.name or first.device_id)


def _too_many_failures(phase: Phase, index: int, failed: Sequence[Member], ended: int) -> Reason:
    first, number, failures = _first_failure(failed), index + 1, len(failed)
    if phase.max_failure_percent is None:
        return because("rollout.halt-count", first, phase=number, failures=failures, limit=phase.max_failures)
    percent = phase.max_failure_percent
    return because("rollout.halt-percent", first, phase=number, failures=failures, ended=ended, percent=percent)


def _passed_at(
    request: DeploymentRequest, rollout: RolloutState, members: Sequence[Member], now: datetime
) -> datetime | None:
    """Since when the phase is passed and nothing failed; None: it is not."""
    own = [m for m in members if m.phase == rollout.phase and _counts(m, rollout)]
    failed = sum(m.state in FAILURES for m in own)
    good = sorted(m.ended_at or now for m in own if m.state == "succeeded")
    needed = _needed(request.phases[rollout.phase], len(own), failed)
    if len(good) < needed:
        return None
    if rollout.phase == len(request.phases) - 1 and any(m.state not in ENDED for m in members):
        return None
    if not own:
        return now - timedelta(seconds=request.phases[rollout.phase].soak_s)  # no device to watch
    failures = [m.ended_at for m in members if m.state in FAILURES and m.ended_at is not None]
    begun = [m.offered_at for m in own if m.offered_at is not None]
    return max([*good[:needed], *failures, *begun, *([rollout.resumed_at] if rollout.resumed_at else [])])


def _progress(request: DeploymentRequest, rollout: RolloutState, members: Sequence[Member]) -> Reason:
    own = [m for m in members if m.phase == rollout.phase and _counts(m, rollout)]
    failed = sum(m.state in FAILURES for m in own)
    good = sum(m.state == "succeeded" for m in own)
    needed = _needed(request.phases[rollout.phase], len(own), failed)
    if good >= needed and own:
        left = sum(m.state not in ENDED for m in members)
        return because("rollout.not-ended", count=left)
    return because("rollout.progress", good=good, size=len(own), phase=rollout.phase + 1, needed=needed)


def has_activated(update_state: str) -> bool:
    """An agent in this state has switched to the candidate, or is switching; it can only commit or roll back by itself."""
    return update_state in _ACTIVATED
