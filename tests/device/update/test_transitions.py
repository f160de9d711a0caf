"""What an event makes of an update: times, counts and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cellfleet.device.system.retry import Backoff
from cellfleet.device.update.journal import Entry, Update
from cellfleet.device.update.policy import RECOVERY_WAIT_S, is_recovering, is_withdrawn, may_retry
from cellfleet.device.update.transitions import ActionResult, advance, begin
from cellfleet.wire.states import DesiredState, ReleaseRef, UpdateState

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
RELEASE = ReleaseRef(
    release_id=3,
    name="cells",
    version="1.2.0",
    counter=3,
    target_path="models/cells/1.2.0/abc.bundle.zip",
    sha256="a" * 64,
    length=10,
)


def desired(generation: int = 2, digit: str = "a") -> DesiredState:
    release = RELEASE.model_copy(update={"sha256": digit * 64})
    return DesiredState(device_id="dev-0123456789ab", generation=generation, deployment_id=7, release=release)


def update(**fields: object) -> Update:
    base = Update(generation=2, deployment_id=7, release=RELEASE, started_at=NOW, changed_at=NOW)
    return base.model_copy(update=fields)


def after(state: UpdateState, result: ActionResult, before: Update) -> Update:
    found = advance(Entry(state=state), before, result, NOW, Backoff(5.0, 0.5)).update
    assert found is not None
    return found


def test_a_temporary_refusal_is_tried_again() -> None:
    found = after("activating", ActionResult("refused", temporary=True), update())
    assert (found.outcome, found.settled, found.attempts) == ("running", False, 1)
    assert found.not_before == NOW + timedelta(seconds=5)


def test_trust_ends_the_waits_for_the_server() -> None:
    assert after("checking", ActionResult("trusted"), update(waits=6)).waits == 0


def test_a_clock_that_was_set_back_makes_no_negative_time() -> None:
    later = NOW + timedelta(hours=1)
    assert begin(desired(), None, later, NOW).started_at == NOW
    assert begin(desired(), None, NOW, later).started_at == NOW


def test_another_attempt_follows_the_newest_desired_state() -> None:
    again = begin(desired(generation=9), update(attempts=3, not_before=NOW), NOW, NOW)
    assert (again.generation, again.attempts, again.not_before) == (9, 3, None)


def test_a_bad_activation_keeps_its_time() -> None:
    since = NOW - timedelta(seconds=3)
    found = after("activating", ActionResult("bad", changes={"activated_at": since}), update(activated_at=NOW))
    assert (found.activated_at, found.bad_at) == (since, NOW)
    assert after("probation", ActionResult("bad"), update(activated_at=since)).activated_at == since
    assert after("probation", ActionResult("bad"), update()).activated_at == NOW


def test_limits_of_time_and_generation() -> None:
    assert may_retry(update(not_before=NOW), NOW)
    rolled_back = update(outcome="rolled-back", settled=True, previous_sha256="b" * 64)
    assert not is_recovering(rolled_back, NOW + timedelta(seconds=RECOVERY_WAIT_S))
    assert is_withdrawn(update(), desired(generation=2, digit="b")), "the same generation counts"
