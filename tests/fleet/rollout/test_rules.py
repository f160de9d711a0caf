"""The rules of a deployment, without a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellfleet.fleet.rollout.rules import RolloutState, decide, first_state, in_order, target_size
from cellfleet.wire.reason import Reason, because, english, text_reason
from cellfleet.wire.rollout import ENDED, FAILURES, DeploymentRequest, Member, Phase

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def request(*phases: Phase, **more: Any) -> DeploymentRequest:
    return DeploymentRequest(release_id=1, group="pilot", phases=phases or (Phase(percent=100),), **more)


@dataclass
class Rehearsal:
    """A deployment in memory: does what the rules say, and lets instruments end."""

    asked: DeploymentRequest
    members: list[Member]
    now: datetime = START
    rollout: RolloutState = field(init=False)
    reason: Reason | None = None
    waits_for: Reason | None = None
    offers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rollout = first_state(self.asked)

    @classmethod
    def of(cls, count: int, *phases: Phase, **more: Any) -> Rehearsal:
        members = [Member(device_id=f"dev-{i:012x}", name=f"XYZ-{i:03d}") for i in range(count)]
        return cls(request(*phases, **more), members)

    def tick(self) -> Rehearsal:
        for _ in range(2 * len(self.asked.phases) + 2):
            decision = decide(self.asked, self.rollout, self.members, self.now)
            assert decision == decide(self.asked, self.rollout, list(reversed(self.members)), self.now)
            self.rollout, self.reason, self.waits_for = (
                decision.rollout,
                decision.reason or self.reason,
                decision.waits_for,
            )
            silent = dict(decision.silent)
            self.members = [self._after(m, silent, decision.offer) for m in self.members]
            self.offers += decision.offer
            if not silent and not decision.offer:
                break
        return self

    def _after(self, m: Member, silent: dict[str, Reason], offer: Sequence[str]) -> Member:
        if m.device_id in silent:
            return m.model_copy(update={"state": "silent", "ended_at": self.now, "reason": silent[m.device_id]})
        if m.device_id in offer:
            assert m.state == "waiting"
            return m.model_copy(update={"state": "offered", "phase": self.rollout.phase, "offered_at": self.now})
        return m

    def end(self, index: int, state: str, reason: str = "") -> Rehearsal:
        ended = self.now if state in ENDED else None
        update = {
            "state": state,
            "ended_at": ended,
            "heard_at": self.now,
            "reason": text_reason(reason) if reason else None,
        }
        self.members[index] = self.members[index].model_copy(update=update)
        return self

    def later(self, seconds: float) -> Rehearsal:
        self.now += timedelta(seconds=seconds)
        return self

    @property
    def state(self) -> str:
        return self.rollout.state

    @property
    def states(self) -> list[str]:
        return [m.state for m in self.members]


def test_phases_go_one_after_the_other_in_the_order_of_names() -> None:
    r = Rehearsal.of(4, Phase(count=1), Phase(percent=75), Phase(percent=100))
    progress = because("rollout.progress", phase=1, good=0, size=1, needed=1)
    assert decide(r.asked, r.rollout, r.members, START).waits_for == progress
    r.tick()
    assert r.states == ["offered", "waiting", "waiting", "waiting"]
    assert r.waits_for == progress
    assert english(progress) == "phase 1: 0 of 1 instruments have succeeded; 1 must"
    r.end(0, "succeeded").tick()
    assert r.states == ["succeeded", "offered", "offered", "waiting"]
    r.end(2, "succeeded").tick()
    assert r.states[3] == "waiting"
    r.end(1, "succeeded").tick()
    assert r.states[3] == "offered"
    r.end(3, "succeeded").tick()
    assert r.state == "succeeded"
    assert r.offers == [m.device_id for m in in_order(r.members)]


def test_one_failure_halts_and_nobody_else_is_offered_it() -> None:
    r = (
        Rehearsal.of(3, Phase(count=1), Phase(percent=100))
        .tick()
        .end(0, "refused", "golden frame g1: AP@0.5 is 0.03")
        .tick()
    )
    assert r.state == "halted"
    assert english(r.reason) == (
        "XYZ-000 refused the release: golden frame g1: AP@0.5 is 0.03. Failures in phase 1: 1; the limit is 0"
    )
    r.later(1e6).tick()
    assert r.states == ["refused", "waiting", "waiting"]


def test_as_many_failures_as_tolerated_do_not_halt() -> None:
    r = Rehearsal.of(5, Phase(percent=100, max_failures=1)).tick()
    r.end(0, "rolled-back").tick()
    assert r.state == "running"
    r.end(1, "succeeded").end(2, "succeeded").end(3, "succeeded").tick()
    assert r.state == "running"
    assert r.end(4, "succeeded").tick().state == "succeeded"


def test_a_share_of_failures_at_the_limit_is_good() -> None:
    phase = Phase(percent=100, max_failure_percent=20, min_ended=5, min_success_percent=50)
    r = Rehearsal.of(10, phase).tick().end(0, "failed")
    for i in range(1, 5):
        r.end(i, "succeeded")
    assert r.tick().state == "running", "1 of 5 is 20 %"
    for i in range(5, 9):
        r.end(i, "succeeded")
    assert r.end(9, "failed").tick().state == "succeeded", "2 of 10 are 20 %"


def test_a_share_that_no_binary_fraction_hits_is_good_at_the_limit() -> None:
    phase = Phase(percent=100, max_failure_percent=100 * 3 / 7, min_ended=7, min_success_percent=1)
    r = Rehearsal.of(7, phase).tick()
    for i in range(7):
        r.end(i, "failed" if i < 3 else "succeeded")
    assert r.tick().state == "succeeded"


def test_the_share_that_must_succeed_is_enough_at_the_limit() -> None:
    r = Rehearsal.of(10, Phase(percent=100, max_failures=10, min_success_percent=70)).tick()
    for i in range(10):
        r.end(i, "failed" if i < 3 else "succeeded")
    assert r.tick().state == "succeeded"
    r = Rehearsal.of(10, Phase(percent=100, max_failures=10, min_success_percent=70)).tick()
    for i in range(4):
        r.end(i, "failed")
    assert "In phase 1 at most 6 of 10 instruments can succeed; 7 must" in english(r.tick().reason)


def test_times_are_good_at_the_limit() -> None:
    r = Rehearsal.of(1, Phase(percent=100, silent_after_s=60, soak_s=30)).tick().later(60).tick()
    assert r.states == ["offered"], "exactly as long as is tolerated"
    assert r.end(0, "succeeded").later(29).tick().state == "running"
    assert r.later(1).tick().state == "succeeded", "the soak time is over"


def test_a_failure_at_the_moment_of_resuming_is_forgiven() -> None:
    r = Rehearsal.of(3, Phase(percent=100)).tick().end(0, "failed").tick()
    assert r.state == "halted"
    r.rollout = replace(r.rollout, state="running", resumed_at=r.now)
    assert r.tick().state == "running"
    assert r.later(1).end(1, "failed").tick().state == "halted"


def test_a_share_of_failures_is_judged_from_the_least_count_on() -> None:
    phase = Phase(percent=100, max_failure_percent=20, min_ended=5, min_success_percent=50)
    r = Rehearsal.of(10, phase).tick()
    r.end(0, "failed").end(1, "failed").end(2, "succeeded").end(3, "succeeded").tick()
    assert r.state == "running"
    r.end(4, "succeeded").tick()
    assert r.state == "halted"
    assert "Failures in phase 1: 2 of 5 ended; the limit is 20 %" in english(r.reason)


def test_a_least_count_above_the_phase_is_judged_when_all_have_ended() -> None:
    phase = Phase(percent=100, max_failure_percent=40, min_ended=50, min_success_percent=1)
    r = Rehearsal.of(2, phase).tick().end(0, "failed").tick()
    assert r.state == "running"
    assert r.end(1, "succeeded").tick().state == "halted"


def test_halts_when_the_success_threshold_is_out_of_reach() -> None:
    r = Rehearsal.of(4, Phase(percent=100, max_failures=4, min_success_percent=75)).tick().end(0, "failed").tick()
    assert r.state == "running"
    r.end(1, "failed").tick()
    assert r.state == "halted"
    assert "In phase 1 at most 2 of 4 instruments can succeed; 3 must" in english(r.reason)


def test_a_phase_of_failures_only_is_never_a_success() -> None:
    r = Rehearsal.of(2, Phase(count=1, max_failures=1), Phase(percent=100)).tick().end(0, "failed").tick()
    assert r.state == "halted"
    assert r.states[1] == "waiting"


def test_silence_is_a_failure() -> None:
    r = Rehearsal.of(2, Phase(count=1, silent_after_s=60), Phase(percent=100)).tick().later(60).tick()
    assert r.state == "running"
    r.later(1).tick()
    assert r.states == ["silent", "waiting"]
    assert r.state == "halted"
    assert "is silent: not heard since 2026-03-01 12:00:00 UTC; the limit is 60 s" in english(r.reason)


def test_a_deferred_instrument_that_is_heard_is_no_failure() -> None:
    r = Rehearsal.of(1, Phase(percent=100, silent_after_s=60)).tick()
    for _ in range(50):
        r.later(50).end(0, "deferred").tick()
    assert r.state == "running"


def test_soak_begins_again_after_a_tolerated_failure() -> None:
    phase = Phase(percent=50, soak_s=100, max_failures=1, min_success_percent=50)
    r = Rehearsal.of(4, phase, Phase(percent=100)).tick().end(0, "succeeded").tick()
    assert r.rollout.soak_since == START
    assert r.waits_for == because("rollout.soak", phase=1, until="2026-03-01 12:01:40")
    r.later(90).end(1, "failed").tick().later(99).tick()
    assert r.states[2:] == ["waiting", "waiting"]
    assert r.later(1).tick().states[2:] == ["offered", "offered"]


def test_approval_is_waited_for_before_the_phase() -> None:
    r = Rehearsal.of(2, Phase(count=1), Phase(percent=100, approval=True), needs_approval=True).tick()
    assert (r.rollout.state, r.states) == ("awaiting-approval", ["waiting", "waiting"])
    r.rollout = replace(r.rollout, approved_phase=0)
    r.tick().end(0, "succeeded").tick()
    assert (r.rollout.state, r.rollout.phase) == ("awaiting-approval", 1)
    assert r.waits_for == because("rollout.approval", phase=2)
    r.rollout = replace(r.rollout, approved_phase=1)
    assert r.tick().states == ["succeeded", "offered"]


def test_a_failure_while_it_waits_for_approval_halts_too() -> None:
    phases = (Phase(percent=50, min_success_percent=50), Phase(percent=100, approval=True))
    r = Rehearsal.of(4, *phases).tick().end(0, "succeeded").tick()
    assert r.state == "awaiting-approval"
    assert r.end(1, "failed").tick().state == "halted"


def test_resumed_failures_count_no_more_and_new_ones_do() -> None:
    r = Rehearsal.of(3, Phase(count=1), Phase(percent=100)).tick().end(0, "failed").tick()
    assert r.state == "halted"
    r.rollout = replace(r.rollout, state="running", resumed_at=r.later(5).now)
    r.tick()
    assert (r.rollout.state, r.states) == ("running", ["failed", "offered", "offered"])
    r.later(1).end(1, "failed").tick()
    assert r.state == "halted"


def test_without_instruments_it_halts() -> None:
    r = Rehearsal.of(0, Phase(percent=100)).tick()
    assert (r.rollout.state, r.reason) == ("halted", because("rollout.empty"))


def test_a_deployment_waits_for_its_stragglers() -> None:
    r = (
        Rehearsal.of(4, Phase(percent=100, min_success_percent=50))
        .tick()
        .end(0, "succeeded")
        .end(1, "succeeded")
        .tick()
    )
    assert (r.rollout.state, r.waits_for) == ("running", because("rollout.not-ended", count=2))
    r.end(2, "succeeded").end(3, "succeeded").tick()
    assert r.state == "succeeded"


@pytest.mark.parametrize(
    ("phases", "devices", "sizes"),
    [
        ((Phase(percent=10), Phase(percent=100)), 3, [1, 3]),
        ((Phase(percent=33), Phase(percent=100)), 3, [1, 3]),
        ((Phase(count=5), Phase(percent=10), Phase(count=1)), 20, [5, 5, 20]),
        ((Phase(count=9),), 3, [3]),
        ((Phase(percent=7), Phase(percent=100)), 100, [7, 100]),
    ],
)
def test_sizes(phases: tuple[Phase, ...], devices: int, sizes: list[int]) -> None:
    assert [target_size(request(*phases), i, devices) for i in range(len(phases))] == sizes


PHASES = st.lists(
    st.builds(
        lambda size, failures, percent, least, success, soak, silent, approval: Phase(
            count=size if isinstance(size, int) else None,
            percent=None if isinstance(size, int) else size,
            max_failures=failures,
            max_failure_percent=percent,
            min_ended=least,
            min_success_percent=success,
            soak_s=soak,
            silent_after_s=silent,
            approval=approval,
        ),
        st.integers(1, 6) | st.floats(1, 100),
        st.integers(0, 3),
        st.none() | st.floats(0, 100),
        st.integers(1, 4),
        st.sampled_from([0, 50, 80, 100]),
        st.sampled_from([0, 30, 300]),
        st.sampled_from([40, 400]),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)
DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("later"), st.integers(1, 200)),
        st.tuples(
            st.sampled_from(["updating", "deferred", "succeeded", "refused", "failed", "rolled-back"]),
            st.integers(0, 7),
        ),
        st.tuples(st.sampled_from(["approve", "halt", "resume"]), st.just(0)),
    ),
    max_size=40,
)


def _do(r: Rehearsal, word: str, number: int) -> None:
    if word == "later":
        r.later(number)
    elif word == "approve":
        r.rollout = replace(r.rollout, approved_phase=r.rollout.phase)
    elif word == "halt" and r.rollout.state in ("running", "awaiting-approval"):
        r.rollout = replace(r.rollout, state="halted")
    elif word == "resume" and r.rollout.state == "halted":
        r.rollout = replace(r.rollout, state="running", resumed_at=r.now)
    elif word not in ("approve", "halt", "resume"):
        member = r.members[number % len(r.members)]
        if member.state not in ENDED and member.state != "waiting":
            r.end(number % len(r.members), word, "because")


@settings(max_examples=150, deadline=None)
@given(phases=PHASES, devices=st.integers(1, 8), deeds=DEEDS)
def test_whatever_happens(phases: list[Phase], devices: int, deeds: list[tuple[str, int]]) -> None:
    r = Rehearsal.of(devices, *phases).tick()
    for word, number in deeds:
        before, offered, phase = r.rollout.state, len(r.offers), r.rollout.phase
        _do(r, word, number)
        halted = r.rollout.state == "halted"
        r.tick()
        assert r.rollout.phase >= phase
        assert len(r.offers) == len(set(r.offers)) <= target_size(r.asked, r.rollout.phase, devices)
        if halted or before == "succeeded":
            assert len(r.offers) == offered
        assert sum(Counter(r.states).values()) == devices
        first = [m.state != "waiting" for m in in_order(r.members)]
        assert first == sorted(first, reverse=True), "offered in the order of names"
        if r.rollout.state == "succeeded":
            assert all(s in ENDED for s in r.states)
        if r.rollout.state == "running":
            assert all(
                r.rollout.approved_phase >= i
                for i, p in enumerate(r.asked.phases)
                if p.approval and i == r.rollout.phase
            )
        steady = decide(r.asked, r.rollout, r.members, r.now)
        assert (steady.rollout, steady.offer, steady.silent) == (r.rollout, (), ()), "told again, it does nothing new"


@settings(max_examples=60, deadline=None)
@given(phases=PHASES, devices=st.integers(1, 8))
def test_when_everybody_succeeds_the_deployment_does(phases: list[Phase], devices: int) -> None:
    r = Rehearsal.of(devices, *phases)
    for _ in range(4 * len(phases) + 4):
        r.rollout = replace(r.rollout, approved_phase=len(phases) - 1)
        r.tick()
        for i, state in enumerate(r.states):
            if state == "offered":
                r.end(i, "succeeded")
        r.later(301)
    r.tick()
    assert r.state == "succeeded"
    assert len(r.offers) == devices
    assert not set(FAILURES) & set(r.states)
