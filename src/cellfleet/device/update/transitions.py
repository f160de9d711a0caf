"""What an event makes of the journal: the next page, out of the page before and what was found. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cellfleet.device.update.journal import Entry, Update
from cellfleet.device.update.policy import MAX_ATTEMPTS, backoff_s, same_update
from cellfleet.device.update.state_machine import Event, next_state
from cellfleet.wire.plain import made_plain, words
from cellfleet.wire.states import DesiredState, ReleaseRef


@dataclass(frozen=True)
class ActionResult:
    """How an action ended.

    Attributes:
        reason: in words, for people.
        numbers: added to the update's.
        changes: fields of the update that change.
        temporary: it may go well another time.
    """

    event: Event
    reason: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    temporary: bool = False


@dataclass(frozen=True)
class Backoff:
    """How long to wait after a failure: the first wait, and a random number from 0 to 1."""

    retry_s: float
    jitter: float


def begin(desired: DesiredState, last: Update | None, arrived_at: datetime, now: datetime) -> Update:
    """The update that a desired state asks for; one that failed and is tried again goes on with its counts."""
    assert desired.release is not None
    if last is not None and not last.settled and same_update(last, desired):
        asked = {"generation": desired.generation, "window": desired.window, "agent": desired.agent}
        return last.model_copy(update={**asked, "release": desired.release, "not_before": None, "changed_at": now})
    return Update(
        generation=desired.generation,
        deployment_id=desired.deployment_id,
        release=desired.release,
        window=desired.window,
        agent=desired.agent,
        started_at=min(arrived_at, now),
        changed_at=now,
    )


def begin_request(release: ReleaseRef, folder: str, request: str, now: datetime) -> Update:
    """The update that a person asks for out of an offline folder."""
    return Update(
        generation=0,
        deployment_id=None,
        release=release,
        folder=folder,
        request=request,
        started_at=now,
        changed_at=now,
    )


def already_there(update: Update, now: datetime) -> Update:
    """The answer to a desired state that names the active slot."""
    changes = {"outcome": "succeeded", "settled": True, "update_s": 0.0, "reason": "it is active already"}
    return update.model_copy(update={**changes, "changed_at": now})


def advance(entry: Entry, update: Update, done: ActionResult, now: datetime, patience: Backoff) -> Entry:
    """The next page.

    Args:
        entry: the page before.
        update: what the page before holds, or the one that begins.
        done: the event, and what was found.

    Raises:
        KeyError: the event cannot happen in that state; a defect of the caller.
    """
    state = next_state(entry.state, done.event)
    changes: dict[str, Any] = {"changed_at": now, "reason": words(done.reason), **done.changes}
    if done.numbers:
        changes["numbers"] = {**update.numbers, **made_plain(done.numbers)}
    changes |= _outcome(entry, update, done, now, patience)
    kept = None if done.event == "withdrawn" else update.model_copy(update=changes)
    return Entry(state=state, entered_at=now, source=entry.state, trigger=done.event, update=kept)


def _outcome(entry: Entry, update: Update, done: ActionResult, now: datetime, patience: Backoff) -> dict[str, Any]:
    """Fields that follow from the event alone."""
    match done.event:
        case "refused" if not done.temporary:
            return {"outcome": "refused", "settled": True}
        case "failed" | "refused":
            return _again(entry, update, now, patience)
        case "trusted":
            return {"waits": 0, "outcome": "running"}
        case "activated":
            since = done.changes.get("activated_at") or now
            return {"activated_at": since, "update_s": max(0.0, (since - update.started_at).total_seconds())}
        case "bad":
            return {"bad_at": now, "activated_at": done.changes.get("activated_at") or update.activated_at or now}
        case "committed":
            return {"outcome": "succeeded", "settled": True, "reason": update.reason}
        case "rolled-back":
            return {"outcome": "rolled-back", "settled": True, "reason": update.reason}
        case _:
            return {"outcome": "running"}


def _again(entry: Entry, update: Update, now: datetime, patience: Backoff) -> dict[str, Any]:
    """Tried again later; a server that cannot be asked is waited for without end, other failures are counted."""
    if entry.state == "checking":
        waits, attempts, growth = update.waits + 1, update.attempts, update.waits + 1
    else:
        waits, attempts, growth = update.waits, update.attempts + 1, update.attempts + 1
    if attempts >= MAX_ATTEMPTS:
        return {"attempts": attempts, "waits": waits, "outcome": "failed", "settled": True, "not_before": None}
    later = now + timedelta(seconds=backoff_s(growth, patience.retry_s, patience.jitter))
    return {"attempts": attempts, "waits": waits, "outcome": "running", "not_before": later}
