"""What an event makes of an update: times, counts and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cellfleet.device.system.retry import Backoff
from cellfleet.device.update.journal import Entry, Update
from cellfleet.device.update.policy import MAX_ATTEMPTS, RECOVERY_WAIT_S, is_recovering, is_withdrawn, may_retry
from cellfleet.device.update.state_machine import TABLE, Event
from cellfleet.device.update.transitions import ActionResult, advance, already_active, begin, begin_request
from cellfleet.wire.reason import because, text_reason
from cellfleet.wire.states import DesiredState, MaintenanceWindow, ReleaseRef, UpdateState

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


WINDOW = MaintenanceWindow(start="22:00", end="04:00")
LATER = NOW + timedelta(hours=1)
BEFORE = NOW - timedelta(hours=1)
WHY, OLD_WHY = text_reason("because"), text_reason("as before")
RUNNING = {
    "outcome": "deferred",
    "reason": OLD_WHY,
    "numbers": {"n": 1},
    "waits": 2,
    "attempts": 3,
    "changed_at": BEFORE,
}
"""Fields of an update before an event."""


def asking(**fields: Any) -> DesiredState:
    return desired(9).model_copy(update={"window": WINDOW, "agent": {"probation_frames": 3}, **fields})


def test_a_new_update_is_as_the_desired_state_asks() -> None:
    expected = Update(
        generation=9, deployment_id=7, release=RELEASE, window=WINDOW, agent={"probation_frames": 3},
        started_at=BEFORE, changed_at=NOW,
    )  # fmt: skip
    assert begin(asking(), None, BEFORE, NOW) == expected
    for last in (update(settled=True, attempts=3), update(deployment_id=6, attempts=3)):
        assert begin(asking(), last, BEFORE, NOW) == expected
    other = RELEASE.model_copy(update={"sha256": "b" * 64})
    assert begin(asking(), update(release=other, attempts=3), BEFORE, NOW) == expected


def test_another_attempt_takes_what_is_asked_now_and_keeps_what_was_counted() -> None:
    last = update(attempts=3, waits=2, not_before=BEFORE, reason=OLD_WHY, numbers={"n": 1}, started_at=BEFORE)
    newer = RELEASE.model_copy(update={"release_id": 4})
    assert begin(asking(release=newer), last, NOW, LATER) == Update(
        generation=9, deployment_id=7, release=newer, window=WINDOW, agent={"probation_frames": 3}, attempts=3, waits=2,
        reason=OLD_WHY, numbers={"n": 1}, started_at=BEFORE, changed_at=LATER,
    )  # fmt: skip


def test_a_desired_state_that_asks_no_longer_for_a_window_or_settings_clears_them() -> None:
    again = begin(desired(9), update(window=WINDOW, agent={"probation_frames": 3}), NOW, NOW)
    assert (again.window, again.agent) == (None, {})


def test_a_requested_update_is_of_its_folder() -> None:
    found = begin_request(RELEASE.artifact, "/stick", "install-1", NOW)
    assert found == Update(
        generation=0, deployment_id=None, release=RELEASE.artifact, folder="/stick", request="install-1",
        started_at=NOW, changed_at=NOW,
    )  # fmt: skip
    assert found.release_id is None


def test_an_update_to_what_is_active_ends_at_once() -> None:
    begun = update(attempts=3, numbers={"n": 1}, started_at=BEFORE, changed_at=BEFORE)
    assert already_active(begun, NOW) == update(
        attempts=3, numbers={"n": 1}, started_at=BEFORE, changed_at=NOW,
        outcome="succeeded", settled=True, update_s=0.0, reason=because("update.already-active"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "event", "sets"),
    [
        ("idle", "update-wanted", {"outcome": "running"}),
        ("checking", "trusted", {"outcome": "running", "waits": 0}),
        ("downloading", "downloaded", {"outcome": "running"}),
        ("installing", "installed", {"outcome": "running"}),
        ("self-testing", "passed", {"outcome": "running"}),
        ("self-testing", "refused", {"outcome": "refused", "settled": True}),
        ("deferred", "may-activate", {"outcome": "running"}),
        # these two leave the outcome as the event before them set it
        ("activating", "activated", {"activated_at": LATER, "update_s": 3600.0}),
        ("activating", "bad", {"activated_at": LATER, "bad_at": LATER}),
        ("probation", "good", {"outcome": "running"}),
        ("committing", "committed", {"outcome": "succeeded", "settled": True, "reason": OLD_WHY}),
        ("rolling-back", "rolled-back", {"outcome": "rolled-back", "settled": True, "reason": OLD_WHY}),
        ("checking", "failed", {"outcome": "running", "waits": 3, "not_before": LATER + timedelta(seconds=20)}),
        ("downloading", "failed", {"outcome": "running", "attempts": 4, "not_before": LATER + timedelta(seconds=40)}),
    ],
)
def test_what_each_event_sets_and_what_stays(state: UpdateState, event: Event, sets: dict[str, Any]) -> None:
    before = update(**RUNNING)
    result = ActionResult(event, WHY, {"m": float("nan")}, {"artifact": "cells-1.2.0"})
    page = advance(Entry(state=state, entered_at=BEFORE), before, result, LATER, Backoff(5.0, 0.5))
    always = {"changed_at": LATER, "reason": WHY, "numbers": {"n": 1, "m": None}, "artifact": "cells-1.2.0"}
    kept = before.model_copy(update={**always, **sets})
    assert page == Entry(
        state=TABLE[state][event], entered_at=LATER, source=state, trigger=event, update=kept, number=page.number
    )


def test_numbers_of_the_same_name_are_the_newest_ones() -> None:
    before = update(numbers={"n": 1, "o": 2})
    assert after("checking", ActionResult("trusted", numbers={"n": 3}), before).numbers == {"n": 3, "o": 2}
    assert after("checking", ActionResult("trusted"), before).numbers == {"n": 1, "o": 2}


def test_an_action_may_change_the_reason() -> None:
    assert after("checking", ActionResult("trusted", WHY, changes={"reason": OLD_WHY}), update()).reason == OLD_WHY
    assert after("checking", ActionResult("trusted"), update(reason=OLD_WHY)).reason is None


@pytest.mark.parametrize(("started_s", "update_s"), [(-0.5, 0.5), (0, 0.0), (5, 0.0)])
def test_the_time_of_an_update_is_never_negative(started_s: float, update_s: float) -> None:
    """It ends now, where the action does not report when it activated."""
    found = after("activating", ActionResult("activated"), update(started_at=NOW + timedelta(seconds=started_s)))
    assert (found.update_s, found.activated_at) == (update_s, NOW)


def test_an_activation_before_a_power_cut_keeps_its_time() -> None:
    since = NOW - timedelta(seconds=10)
    result = ActionResult("activated", changes={"activated_at": since})
    found = after("activating", result, update(started_at=NOW - timedelta(seconds=40)))
    assert (found.update_s, found.activated_at, found.changed_at) == (30.0, since, NOW)


@pytest.mark.parametrize("event", ["failed", "refused"])
@pytest.mark.parametrize(
    ("attempts", "wait_s"), [(0, 5.0), (1, 10.0), (2, 20.0), (3, 40.0), (4, 80.0), (5, 160.0), (6, 320.0), (7, None)]
)
def test_the_backoff_doubles_up_to_the_last_attempt(event: Event, attempts: int, wait_s: float | None) -> None:
    assert MAX_ATTEMPTS == 8
    before = update(attempts=attempts, waits=3, not_before=BEFORE)
    found = after("downloading", ActionResult(event, temporary=True), before)
    assert (found.attempts, found.waits) == (attempts + 1, 3), "waits for the server do not count"
    if wait_s is None:
        assert (found.outcome, found.settled, found.not_before) == ("failed", True, None)
    else:
        assert (found.outcome, found.settled) == ("running", False)
        assert found.not_before == NOW + timedelta(seconds=wait_s)


@pytest.mark.parametrize(("waits", "wait_s"), [(0, 5.0), (1, 10.0), (2, 20.0), (6, 320.0), (7, 500.0), (99, 500.0)])
def test_the_wait_for_a_server_doubles_without_an_end(waits: int, wait_s: float) -> None:
    found = after("checking", ActionResult("failed"), update(waits=waits, attempts=MAX_ATTEMPTS - 1))
    assert (found.attempts, found.waits) == (MAX_ATTEMPTS - 1, waits + 1), "attempts do not count"
    assert (found.outcome, found.settled) == ("running", False)
    assert found.not_before == NOW + timedelta(seconds=wait_s)
