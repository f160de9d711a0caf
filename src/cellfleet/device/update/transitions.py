"""Computes the next page of the journal from the previous page and the result of an action. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cellfleet.device.system.retry import Backoff
from cellfleet.device.update.journal import Entry, Update
from cellfleet.device.update.policy import MAX_ATTEMPTS, same_update
from cellfleet.device.update.state_machine import Event, next_state
from cellfleet.wire.plain_json import made_plain
from cellfleet.wire.reason import Reason, because
from cellfleet.wire.states import ArtifactRef, DesiredState


@dataclass(frozen=True)
class ActionResult:
    """Result of an action.

    Attributes:
        event: leaves the state.
        reason: for the report.
        numbers: added to the update's.
        changes: fields of the update that change.
        temporary: another attempt may succeed.
    """

    event: Event
    reason: Reason | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    temporary: bool = False


def begin(desired: DesiredState, last: Update | None, arrived_at: datetime, now: datetime) -> Update:
    """Start the update that a desired state asks for; a retry keeps the counts of earlier attempts.

    Args:
        desired: names a release.
        last: the latest update.
        arrived_at: when the desired state arrived; the start of the update's time.
        now: time.
    """
    assert desired.release is not None
    if last is not None and not last.settled and same_update(last, desired):
        latest = {"generation": desired.generation, "window": desired.window, "agent": desired.agent}
        return last.model_copy(update={**latest, "release": desired.release, "not_before": None, "changed_at": now})
    return Update(
        generation=desired.generation,
        deployment_id=desired.deployment_id,
        release=desired.release,
        window=desired.window,
        agent=desired.agent,
        started_at=min(arrived_at, now),
        changed_at=now,
    )


def begin_request(release: ArtifactRef, folder: str, request: str, now: datetime) -> Update:
    """Start the update that an operator requests from an offline folder.

    Args:
        release: to install.
        folder: offline folder, absolute.
        request: name of the request.
        now: time.
    """
    return Update(
        generation=0,
        deployment_id=None,
        release=release,
        folder=folder,
        request=request,
        started_at=now,
        changed_at=now,
    )


def already_active(update: Update, now: datetime) -> Update:
    """The outcome of an update whose release is active already.

    Args:
        update: as it was started.
        now: time.
    """
    changes = {"outcome": "succeeded", "settled": True, "update_s": 0.0, "reason": because("update.already-active")}
    return update.model_copy(update={**changes, "changed_at": now})


def advance(entry: Entry, update: Update, result: ActionResult, now: datetime, backoff: Backoff) -> Entry:
    """The next page.

    Args:
        entry: the previous page.
        update: of the previous page, or a new one.
        result: of the state's action.
        now: time.
        backoff: wait before the next attempt.

    Returns:
        The page to write before the next action starts.

    Raises:
        KeyError: the event is not valid in that state; a defect of the caller.
    """
    state = next_state(entry.state, result.event)
    numbers = {**update.numbers, **made_plain(result.numbers)}
    changes: dict[str, Any] = {"changed_at": now, "reason": result.reason, **result.changes, "numbers": numbers}
    changes |= _outcome(entry, update, result, now, backoff)
    kept = None if result.event == "withdrawn" else update.model_copy(update=changes)
    return Entry(state=state, entered_at=now, source=entry.state, trigger=result.event, update=kept)


def _outcome(entry: Entry, update: Update, result: ActionResult, now: datetime, backoff: Backoff) -> dict[str, Any]:
    """Fields that follow from the event."""
    match result.event:
        case "refused" if not result.temporary:
            return {"outcome": "refused", "settled": True}
        case "failed" | "refused":
            return _retry(entry, update, now, backoff)
        case "trusted":
            return {"waits": 0, "outcome": "running"}
        case "activated":
            since = result.changes.get("activated_at") or now
            return {"activated_at": since, "update_s": max(0.0, (since - update.started_at).total_seconds())}
        case "bad":
            return {"bad_at": now, "activated_at": result.changes.get("activated_at") or update.activated_at or now}
        case "committed":
            return {"outcome": "succeeded", "settled": True, "reason": update.reason}
        case "rolled-back":
            return {"outcome": "rolled-back", "settled": True, "reason": update.reason}
        case _:
            return {"outcome": "running"}


def _retry(entry: Entry, update: Update, now: datetime, backoff: Backoff) -> dict[str, Any]:
    """Schedule a retry. Waits for an unreachable server have no limit; other failures count towards ``MAX_ATTEMPTS``."""
    if entry.state == "checking":
        count = update.waits + 1
        changes: dict[str, Any] = {"waits": count}
    else:
        count = update.attempts + 1
        changes = {"attempts": count}
        if count >= MAX_ATTEMPTS:
            return {**changes, "outcome": "failed", "settled": True, "not_before": None}
    return {**changes, "outcome": "running", "not_before": now + timedelta(seconds=backoff.wait_s(count))}
