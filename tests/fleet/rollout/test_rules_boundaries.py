"""The rules of a deployment at their limits: one decision for members given in full."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cellfleet.fleet.rollout.rules import RolloutDecision, RolloutState, decide, first_state, has_activated, target_size
from cellfleet.wire.reason import Reason, because, text_reason
from cellfleet.wire.rollout import DeploymentRequest, DeploymentState, Member, MemberState, Phase

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNNING = RolloutState("running")
ALL = Phase(percent=100)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def member(name: str, state: MemberState = "offered", **more: Any) -> Member:
    """Offered 100 s ago in phase 0 and ended 50 s ago, if not given otherwise."""
    ended = None if state in ("waiting", "offered", "updating", "deferred") else ago(50)
    given = {} if state == "waiting" else {"phase": 0, "offered_at": ago(100), "ended_at": ended}
    return Member(**{"device_id": f"dev-{name}", "name": name, "state": state, **given, **more})


def decided(*members: Member, phases: tuple[Phase, ...] = (ALL,), rollout: RolloutState = RUNNING) -> RolloutDecision:
    return decide(DeploymentRequest(release_id=1, group="pilot", phases=phases), rollout, members, NOW)


def progress(good: int, size: int, needed: int, phase: int = 1) -> Reason:
    return because("rollout.progress", good=good, size=size, phase=phase, needed=needed)


@pytest.mark.parametrize(
    ("phase", "deployment", "state"),
    [(False, False, "running"), (True, False, "awaiting-approval"), (False, True, "awaiting-approval")],
)
def test_a_deployment_begins_with_the_approval_it_needs(phase: bool, deployment: bool, state: str) -> None:
    phases = (Phase(count=1, approval=phase), Phase(percent=100, approval=True))
    asked = DeploymentRequest(release_id=1, group="pilot", phases=phases, needs_approval=deployment)
    assert first_state(asked) == RolloutState(state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "devices", "size"),
    [
        (Phase(percent=67), 3, 3),  # 2.01
        (Phase(percent=66), 3, 2),
        (Phase(percent=100), 3, 3),
        (Phase(percent=0.1), 3, 1),
        (Phase(percent=50), 0, 0),
        (Phase(count=2), 3, 2),
        (Phase(count=3), 3, 3),
        (Phase(count=4), 3, 3),
    ],
)
def test_the_size_of_a_phase_is_rounded_up(first: Phase, devices: int, size: int) -> None:
    asked = DeploymentRequest(release_id=1, group="pilot", phases=(first, ALL))
    assert target_size(asked, 0, devices) == size


@pytest.mark.parametrize("state", ["halted", "succeeded", "cancelled"])
def test_nothing_is_done_unless_it_runs_or_waits_for_approval(state: DeploymentState) -> None:
    rollout = RolloutState(state, soak_since=ago(7))
    silent = member("b", offered_at=ago(9999))
    assert decided(member("a", "waiting"), silent, member("c", "failed"), rollout=rollout) == RolloutDecision(rollout)


def test_an_approved_phase_runs() -> None:
    phases = (Phase(percent=100, approval=True),)
    waits = RolloutState("awaiting-approval")
    approval = because("rollout.approval", phase=1)
    assert decided(member("a", "waiting"), phases=phases, rollout=waits) == RolloutDecision(waits, waits_for=approval)
    approved = RolloutState("awaiting-approval", approved_phase=0)
    assert decided(member("a", "waiting"), phases=phases, rollout=approved) == RolloutDecision(
        RolloutState("running", approved_phase=0), offer=("dev-a",), waits_for=progress(0, 1, 1)
    )


@pytest.mark.parametrize(
    ("one", "silent"),
    [
        (member("b", offered_at=ago(60)), False),
        (member("b", offered_at=ago(61)), True),
        (member("b", "updating", heard_at=ago(60)), False),
        (member("b", "deferred", heard_at=ago(61)), True),
        (member("b", offered_at=ago(60), heard_at=ago(500)), False),
        (member("b", "succeeded"), False),
        (member("b", offered_at=None), False),
        (member("b", phase=None), False),
        (member("b", "waiting"), False),
        (member("b", "waiting", phase=0, offered_at=ago(61)), False),
    ],
)
def test_who_is_silent(one: Member, silent: bool) -> None:
    phases = (Phase(percent=100, silent_after_s=60, max_failures=9),)
    names = [device_id for device_id, _ in decided(member("a", "succeeded"), one, phases=phases).silent]
    assert names == (["dev-b"] if silent else [])


def test_silent_members_are_in_order_and_count_at_once() -> None:
    phases = (Phase(percent=100, silent_after_s=60, max_failures=1),)
    rollout = RolloutState("running", soak_since=ago(9))
    c, b = member("c", offered_at=ago(200), heard_at=ago(90)), member("b")
    why = {
        "dev-b": because("rollout.silent", since="2026-03-01 11:58:20", limit_s=60),
        "dev-c": because("rollout.silent", since="2026-03-01 11:58:30", limit_s=60),
    }
    halt = because("rollout.member-silent", why["dev-b"], name="b")
    assert decided(c, member("a", "succeeded"), b, phases=phases, rollout=rollout) == RolloutDecision(
        RolloutState("halted"),
        tuple(why.items()),
        reason=because("rollout.halt-count", halt, phase=1, failures=2, limit=1),
    )


@pytest.mark.parametrize(
    ("state", "code"),
    [("refused", "member-refused"), ("failed", "member-failed"), ("rolled-back", "member-rolled-back")],
)
def test_a_halt_gives_the_first_failure(state: MemberState, code: str) -> None:
    first = member("b", state, ended_at=ago(60), reason=text_reason("too dark"))
    untimed = member("a", "failed", ended_at=None)
    halt = because(f"rollout.{code}", text_reason("too dark"), name="b")
    assert decided(untimed, member("a", "failed"), first).reason == because(
        "rollout.halt-count", halt, phase=1, failures=3, limit=0
    )


def test_a_failure_without_name_and_reason_is_given_by_its_id() -> None:
    twins = [member("", "failed", device_id=f"dev-{i}") for i in (2, 1)]
    halt = because("rollout.member-failed", because("rollout.no-reason"), name="dev-1")
    assert decided(*twins).reason == because("rollout.halt-count", halt, phase=1, failures=2, limit=0)


def test_an_offer_and_an_unpassed_phase_are_not_soaked() -> None:
    phases, rollout = (Phase(percent=50), ALL), RolloutState("running", soak_since=ago(9))
    waiting = [member(n, "waiting") for n in "dcba"]
    assert decided(*waiting, phases=phases, rollout=rollout) == RolloutDecision(
        RUNNING, offer=("dev-a", "dev-b"), waits_for=progress(0, 2, 2)
    )
    half = [member("a", "succeeded"), member("b"), *waiting[:2]]
    assert decided(*half, phases=phases, rollout=rollout) == RolloutDecision(RUNNING, waits_for=progress(1, 2, 2))


def test_the_next_phase_begins_without_a_soak() -> None:
    phases = (Phase(count=1, soak_s=50), Phase(percent=100, approval=True))
    rollout = RolloutState("running", soak_since=ago(50))
    assert decided(member("a", "succeeded"), member("b", "waiting"), phases=phases, rollout=rollout) == RolloutDecision(
        RolloutState("awaiting-approval", phase=1), waits_for=because("rollout.approval", phase=2)
    )


def test_a_deployment_that_succeeds_keeps_the_time_it_passed() -> None:
    rollout = RolloutState("running", soak_since=ago(9))
    assert decided(member("a", "succeeded"), rollout=rollout) == RolloutDecision(
        RolloutState("succeeded", soak_since=ago(50))
    )


def test_a_last_phase_without_devices_is_passed() -> None:
    phases = (ALL, Phase(percent=100, soak_s=30))
    assert decided(member("a", "succeeded"), phases=phases) == RolloutDecision(
        RolloutState("succeeded", phase=1, soak_since=ago(30))
    )


SOAK = {"soak_s": 1000, "max_failures": 3}


@pytest.mark.parametrize(
    ("percent", "members", "resumed", "since"),
    [
        # the success that completes the share, not a later one
        (30, [("succeeded", 40), ("succeeded", 30), ("succeeded", 20)], None, 40),
        (50, [("succeeded", 20), ("succeeded", 40), ("succeeded", 30)], None, 30),
        (100, [("succeeded", 20), ("succeeded", 40), ("succeeded", 30)], None, 20),
        # a failure after it
        (30, [("succeeded", 40), ("failed", 30), ("succeeded", 20)], None, 30),
        (30, [("succeeded", 40), ("failed", None), ("succeeded", 20)], None, 40),
        # none must succeed: since the offer
        (0, [("succeeded", 40), ("succeeded", 30), ("succeeded", 20)], None, 100),
        # a resume after it, or before it
        (30, [("succeeded", 40), ("succeeded", 30), ("succeeded", 20)], 10, 10),
        (30, [("succeeded", 40), ("succeeded", 30), ("succeeded", 20)], 70, 40),
    ],
)
def test_since_when_a_phase_is_soaked(
    percent: float, members: list[tuple[MemberState, float | None]], resumed: float | None, since: float
) -> None:
    phases = (Phase(percent=75, min_success_percent=percent, **SOAK), ALL)  # type: ignore[arg-type]
    own = [
        member(f"a{i}", state, ended_at=None if ended is None else ago(ended))
        for i, (state, ended) in enumerate(members)
    ]
    rollout = RolloutState("running", resumed_at=None if resumed is None else ago(resumed))
    found = decided(*own, member("b", "waiting"), phases=phases, rollout=rollout)
    assert found.rollout.soak_since == ago(since)


@pytest.mark.parametrize(
    ("ended", "state"), [(49, "halted"), (50, "running"), (51, "running"), (None, "halted")], ids=str
)
def test_failures_up_to_the_resume_are_forgiven(ended: float | None, state: str) -> None:
    rollout = RolloutState("running", resumed_at=ago(50))
    failed = member("a", "failed", ended_at=None if ended is None else ago(ended))
    assert decided(failed, member("b"), rollout=rollout).rollout.state == state


def test_only_failures_are_forgiven() -> None:
    rollout = RolloutState("running", resumed_at=ago(50))
    found = decided(member("a", "failed"), member("b", "succeeded"), member("c"), rollout=rollout)
    assert found.waits_for == progress(1, 2, 2)


@pytest.mark.parametrize(
    ("failed", "good", "open_", "limit", "least", "state"),
    [
        (1, 4, 5, 20, 5, "running"),
        (1, 4, 5, 19.9, 5, "halted"),
        (1, 4, 5, 20 - 1e-9, 5, "running"),  # within what rounding may add
        (2, 3, 5, 20, 5, "halted"),
        (2, 2, 6, 20, 5, "running"),  # fewer than the least count
        (2, 1, 0, 20, 5, "halted"),  # all have ended
        (1, 98, 1, 1.005, 5, "halted"),  # 1.0101 %
        (1, 98, 1, 1.0102, 5, "running"),
        (2, 197, 1, 1.0102, 5, "running"),
    ],
)
def test_a_share_of_failures(failed: int, good: int, open_: int, limit: float, least: int, state: str) -> None:
    phase = Phase(percent=100, max_failure_percent=limit, min_ended=least, min_success_percent=1)
    states: list[MemberState] = ["failed"] * failed + ["succeeded"] * good + ["offered"] * open_  # type: ignore[assignment]
    found = decided(*(member(f"{i:03d}", s) for i, s in enumerate(states)), phases=(phase,))
    assert found.rollout.state == state
    if found.reason:
        first = because("rollout.member-failed", because("rollout.no-reason"), name="000")
        assert found.reason == because(
            "rollout.halt-percent", first, phase=1, failures=failed, ended=failed + good, percent=limit
        )


@pytest.mark.parametrize(
    ("percent", "size", "failed", "needed"),
    [
        (0, 2, 0, 0),
        (0.5, 2, 0, 1),
        (1, 2, 0, 1),
        (70, 10, 3, 7),
        (70.5, 10, 2, 8),  # 7.05
        (99, 10, 0, 10),
        (100, 10, 0, 10),
        (100, 10, 3, 7),
    ],
)
def test_how_many_must_succeed(percent: float, size: int, failed: int, needed: int) -> None:
    phases = (Phase(percent=100, max_failures=size, min_success_percent=percent),)
    own = [member(f"{i:02d}", "failed" if i < failed else "offered") for i in range(size)]
    waits_for = progress(0, size, needed) if needed else because("rollout.not-ended", count=size)
    assert decided(*own, phases=phases) == RolloutDecision(RUNNING, waits_for=waits_for)


def test_no_success_is_enough_where_none_is_needed() -> None:
    failed = member("a", "failed")
    none = Phase(percent=100, max_failures=1, min_success_percent=0)
    assert decided(failed, phases=(none,)).rollout.state == "succeeded"
    one = Phase(percent=100, max_failures=1, min_success_percent=1)
    first = because("rollout.member-failed", because("rollout.no-reason"), name="a")
    hopeless = because("rollout.halt-hopeless", first, phase=1, hopeful=0, size=1, needed=1)
    assert decided(failed, phases=(one,)) == RolloutDecision(RolloutState("halted"), reason=hopeless)


def test_a_failure_of_an_earlier_phase_halts_a_later_one() -> None:
    rollout = RolloutState("running", phase=1)
    found = decided(member("a", "failed"), member("b", phase=1), phases=(Phase(count=1), ALL), rollout=rollout)
    first = because("rollout.member-failed", because("rollout.no-reason"), name="a")
    assert found.reason == because("rollout.halt-count", first, phase=1, failures=1, limit=0)


def test_a_withdrawn_member_does_not_count() -> None:
    withdrawn = member("b", "waiting", phase=0, offered_at=ago(100))
    found = decided(member("a", "succeeded"), withdrawn, phases=(Phase(count=1), ALL))
    assert found == RolloutDecision(
        RolloutState("running", phase=1), offer=("dev-b",), waits_for=progress(0, 1, 1, phase=2)
    )


def test_progress_counts_the_members_of_the_phase() -> None:
    rollout = RolloutState("running", phase=1)
    early = [member("a", "succeeded"), member("b", "succeeded")]
    own = [member("c", "succeeded", phase=1), member("d", phase=1), member("e", phase=1)]
    found = decided(*early, *own, phases=(Phase(count=2), ALL), rollout=rollout)
    assert found.waits_for == progress(1, 3, 3, phase=2)
    enough = Phase(percent=100, min_success_percent=30)
    found = decided(*early, *own, phases=(Phase(count=2), enough), rollout=rollout)
    assert found.waits_for == because("rollout.not-ended", count=2)


@pytest.mark.parametrize(
    ("state", "activated"),
    [
        ("activating", True),
        ("probation", True),
        ("committing", True),
        ("rolling-back", True),
        ("idle", False),
        ("downloading", False),
        ("", False),
    ],
)
def test_which_agents_have_activated(state: str, activated: bool) -> None:
    assert has_activated(state) is activated
