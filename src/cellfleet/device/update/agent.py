"""The agent: looks around, decides, writes its journal, acts. Its whole life is the table in ``table``.

What takes long runs as an errand beside the loop, so that frames go on being drawn while an update comes.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cellfleet.device.camera.inhibit import read_leases
from cellfleet.device.interfaces import EventSink, WorkSnapshot
from cellfleet.device.server.server_sync import ServerSync
from cellfleet.device.system.versioned_file import VersionedFile, WriteFn
from cellfleet.device.update import transitions
from cellfleet.device.update.actions import ActionContext, run_action
from cellfleet.device.update.background_task import BackgroundTask
from cellfleet.device.update.install_requests import drop_request, next_request
from cellfleet.device.update.journal import Entry, Journal, Tally, Update
from cellfleet.device.update.policy import (
    is_recovering,
    is_there_already,
    is_wanted,
    is_withdrawn,
    its_time_has_come,
    limits_of,
    waits_for,
)
from cellfleet.device.update.probation import add, judge, median_ms
from cellfleet.device.update.rollback import go_back, repair
from cellfleet.device.update.state_machine import BEFORE_ACTIVATION
from cellfleet.device.update.transitions import ActionResult, Backoff
from cellfleet.errors import CellfleetError
from cellfleet.ports import write_atomic
from cellfleet.wire.events import AgentMoved, Incident
from cellfleet.wire.plain import words

_LOG = logging.getLogger(__name__)
_MOST_MOVES = 40
_KEPT_TIMES = 200
News = Callable[[str], None]


@dataclass(frozen=True)
class AgentPorts:
    """What the agent talks to.

    Attributes:
        sink: events for the server.
        news: one line for people.
        errands: run what takes long.
        jitter: random numbers from 0 to 1.
        write: the disk; tests bring one that fails.
    """

    contact: ServerSync
    sink: EventSink
    errands: BackgroundTask[ActionResult]
    news: News = _LOG.info
    jitter: Callable[[], float] = random.random
    write: WriteFn = write_atomic


class Agent:
    """One instrument's agent. ``start`` once, then ``tick`` for ever.

    Attributes:
        journal: the state, newest page.
        reason: why it waits, in words; newer than the journal's.
        numbers: of a probation that goes on.
        problems: what went wrong in the latest tick, in words.
        seen: of the latest tick.
    """

    def __init__(self, tools: ActionContext, journal: Journal, outside: AgentPorts) -> None:
        self.tools, self.journal, self._out = tools, journal, outside
        self._slots, self._work, self._clock = tools.slots, tools.work, tools.clock
        self._told = VersionedFile(tools.home.state, "told", outside.write)
        self._times: deque[float] = deque(maxlen=_KEPT_TIMES)
        self.reason = ""
        self.numbers: dict[str, Any] = {}
        self.problems: tuple[str, ...] = ()
        self.seen = WorkSnapshot()

    def start(self) -> None:
        """Look at what a process before this one left, and go on from there."""
        now = self._clock.now()
        for name in (*self.journal.damaged, *self._slots.damaged):
            self._incident("state-damaged", f"{name} is damaged; the file before it counts", now)
        if self.journal.entry.state == "idle" or self.journal.entry.state in BEFORE_ACTIVATION:
            self._repair(now)
        self._work.switch(self._slots.get("active"))
        told = self._told.read().content
        if self.journal.entry.trigger and self.journal.entry.number != told:
            self._tell_move(self.journal.entry, self.journal.entry.update)

    def tick(self) -> None:
        """Look, decide, act; short, but for errands that run in place. What the disk refuses is tried again."""
        now = self._clock.now()
        problems: list[str] = []
        self.seen = WorkSnapshot()
        try:
            self.seen = self._work.poll(now)
            self._note_frames(self.seen)
            for _ in range(_MOST_MOVES):
                if not self._step(now):
                    break
        except CellfleetError as e:
            _LOG.warning("%s", e.message)
            problems.append(e.message)
        self.problems = tuple(problems)

    @property
    def state(self) -> str:
        """The state of the table."""
        return self.journal.entry.state

    def _step(self, now: datetime) -> bool:
        """One look at one state; True when it is worth looking again at once."""
        entry = self.journal.entry
        if entry.state == "idle" or entry.update is None:
            return self._idle(entry, now)
        match entry.state:
            case "deferred":
                return self._deferred(entry.update, now)
            case "probation":
                return self._probation(entry.update, now)
            case "committing":
                return self._commit(entry.update, now)
            case "rolling-back":
                return self._roll_back(entry.update, now)
        return self._errand(entry.update, now)

    def _idle(self, entry: Entry, now: datetime) -> bool:
        if entry.state != "idle":  # a page without an update: of another version, nothing can be gone on with
            self.journal.write(Entry(entered_at=now))
            return True
        self._tidy()
        last = entry.update
        self._note_recovery(last)
        if not self._may_begin(last, now):
            return False
        if (wanted := self._wanted(last, now)) is None:
            return False
        if wanted.settled:
            self._slots.note_deployment(wanted.release.sha256, wanted.deployment_id)
            self._keep(wanted, now)
            return True
        self._move(wanted, ActionResult("update-wanted", wanted.reason), now)
        if wanted.request:
            drop_request(self.tools.home, wanted.request)
        return True

    def _wanted(self, last: Update | None, now: datetime) -> Update | None:
        """What is to be done next: a person's request, what failed before, the desired state."""
        active = self._slots.pointer.active
        request = next_request(self.tools.home)
        if request is not None:
            if last is not None and last.request == request.name:
                drop_request(self.tools.home, request.name)
            else:
                update = transitions.begin_request(request.release, request.folder, request.name, now)
                return transitions.already_there(update, now) if request.release.sha256 == active else update
        if last is not None and last.folder and not last.settled:
            return last.model_copy(update={"not_before": None}) if its_time_has_come(last, now) else None
        contact = self._out.contact
        desired = contact.desired
        if desired is None:
            return None
        arrived_at = contact.arrived_at or now
        if last is not None and contact.back_at is not None and contact.back_at > last.changed_at:
            last = last.model_copy(update={"not_before": None})
        if is_wanted(desired, active, last, now):
            return transitions.begin(desired, last, arrived_at, now)
        if is_there_already(desired, self._slots.get("active"), last):
            return transitions.already_there(transitions.begin(desired, last, arrived_at, now), now)
        return None

    def _may_begin(self, last: Update | None, now: datetime) -> bool:
        """The end of the update before is told first, with all its times: a report holds one update only."""
        contact = self._out.contact
        if last is None or not last.settled or contact.trouble:
            return True
        return not is_recovering(last, now) and contact.has_told(last)

    def _errand(self, update: Update, now: datetime) -> bool:
        """States whose action takes long."""
        state, errands = self.journal.entry.state, self._out.errands
        withdrawn = state in BEFORE_ACTIVATION and is_withdrawn(update, self._out.contact.desired)
        if withdrawn:
            self.tools.cancelled.set()
        if not errands.busy:
            self.tools.cancelled.clear()
            if withdrawn:
                self._move(update, ActionResult("withdrawn", "the desired state changed"), now)
            else:
                errands.start(lambda: run_action(self.tools, state, update))
            return True
        done = errands.result()
        if done is None:
            return False
        if withdrawn:
            return True
        self._move(update, self._activate(done, update, now) if state == "activating" else done, now)
        return True

    def _deferred(self, update: Update, now: datetime) -> bool:
        desired = self._out.contact.desired
        if is_withdrawn(update, desired):
            self._move(update, ActionResult("withdrawn", "the desired state changed"), now)
            return True
        window = desired.window if desired is not None and not update.folder else update.window
        why = waits_for(read_leases(self.tools.home.inhibit)[0], window, now)
        if why:
            if update.outcome != "deferred":
                self._keep(update.model_copy(update={"outcome": "deferred", "reason": why}), now)
            self.reason = why
            return False
        tally = Tally(base_ms=median_ms(self._times))
        changes = {"previous_sha256": self._slots.pointer.active, "tally": tally}
        self._move(update, ActionResult("may-activate", "nothing holds it back", changes=changes), now)
        return True

    def _activate(self, done: ActionResult, update: Update, now: datetime) -> ActionResult:
        """The pointer is written, when its segmenter is ready; the same again after a power cut."""
        sha256 = update.release.sha256
        if done.event == "activated":
            self._slots.activate(sha256, now.isoformat())
            self._work.switch(self._slots.find(sha256))
        elif self._slots.pointer.active == sha256:
            done = replace(done, event="bad")
        if self._slots.pointer.active != sha256:
            return done
        since = datetime.fromisoformat(self._slots.pointer.active_since)
        return replace(done, changes={**done.changes, "activated_at": since})

    def _probation(self, update: Update, now: datetime) -> bool:
        sha256, before = update.release.sha256, update.tally
        tally = add(before, self.seen, sha256)
        pause = update.activation_pause_s
        if before.drawn == 0:
            pause = max(pause or 0.0, self.seen.gap_s)
        limits, _ = limits_of(self.tools.settings.agent, update.agent)
        verdict = judge(tally, limits, update.activated_at or now, now)
        changes = {"tally": tally, "activation_pause_s": pause}
        self.reason, self.numbers = verdict.reason, {"probation": verdict.numbers}
        if verdict.event is None and self._slots.find(sha256) is None:
            verdict = replace(verdict, event="bad", reason="its slot is damaged")
        if verdict.event is not None:
            self._move(update, ActionResult(verdict.event, verdict.reason, self.numbers, changes), now)
            return True
        if tally != before or pause != update.activation_pause_s:
            self._keep(update.model_copy(update=changes), now)
        return False

    def _commit(self, update: Update, now: datetime) -> bool:
        self._slots.commit(update.release.sha256, now.isoformat())
        self._slots.sweep(self.tools.settings.agent.keep_slots, self._work.pinned())
        self._move(update, ActionResult("committed"), now)
        return True

    def _roll_back(self, update: Update, now: datetime) -> bool:
        found_s = _seconds(update.activated_at, update.bad_at)
        good = go_back(self._slots, self._work, update, now)
        text = f"back to {good.label}" if good is not None else "there is no slot to go back to"
        self._out.news(f"{update.release.name} {update.release.version} is bad: {update.reason}; {text}")
        numbers = {"rollback": {"found_s": found_s, "to": good.label if good is not None else ""}}
        self._move(update, ActionResult("rolled-back", numbers=numbers), now)
        return True

    def _tidy(self) -> None:
        """An idle agent has no candidate: what a refused or withdrawn update left is removed."""
        sha256 = self._slots.pointer.candidate
        if sha256:
            if (slot := self._slots.find(sha256)) is not None:
                self._work.cool(slot)
            self._slots.name_candidate("")
            if sha256 not in self._work.pinned():
                self._slots.remove(sha256)

    def _repair(self, now: datetime) -> None:
        """A pointer names a slot whose bytes are the right ones, or nothing."""
        lost = repair(self._slots, self._work, self.journal, now)
        if lost:
            self._incident("slot-damaged", lost, now)

    def _note_frames(self, seen: WorkSnapshot) -> None:
        """Times of the active slot, with which a new one is compared."""
        active = self._slots.pointer.active
        self._times.extend(f.milliseconds for f in seen.frames if f.slot == active and f.result == "segmented")

    def _note_recovery(self, last: Update | None) -> None:
        """When the slot before draws frames again after a rollback."""
        if last is None or last.outcome != "rolled-back" or last.recovery_s is not None or last.bad_at is None:
            return
        active, bad_at = self._slots.pointer.active, last.bad_at
        drawn = [f.at for f in self.seen.frames if f.slot == active and f.result == "segmented" and f.at >= bad_at]
        if drawn:
            recovery_s = _seconds(last.activated_at, min(drawn))
            self._keep(last.model_copy(update={"recovery_s": recovery_s}), last.changed_at)

    def _keep(self, update: Update, now: datetime) -> None:
        """A page that repeats its state."""
        entry = self.journal.entry
        kept = update.model_copy(update={"changed_at": now})
        self.journal.write(entry.model_copy(update={"update": kept, "source": "", "trigger": ""}))

    def _move(self, update: Update, done: ActionResult, now: datetime) -> None:
        limits, _ = limits_of(self.tools.settings.agent, update.agent)
        patience = Backoff(limits.retry_s, self._out.jitter())
        if done.event != "update-wanted" and done.event != "may-activate":
            self.reason, self.numbers = "", {}
        self.journal.write(transitions.advance(self.journal.entry, update, done, now, patience))
        entry = self.journal.entry
        self._out.news(_move_words(entry, update, done.reason))
        if entry.state in ("probation", "rolling-back"):
            self._times.clear()  # another slot draws from here on
        self._tell_move(entry, entry.update or update)

    def _tell_move(self, entry: Entry, update: Update | None) -> None:
        from_server = update is not None and not update.folder
        self._out.sink.put(
            AgentMoved(
                at=entry.entered_at or self._clock.now(),
                source=entry.source,
                target=entry.state,
                trigger=entry.trigger,
                deployment_id=update.deployment_id if update else None,
                release_id=update.release.release_id if update and from_server else None,
                reason=update.reason if update else "",
            )
        )
        self._told.write(entry.number)

    def _incident(self, kind: str, text: str, now: datetime) -> None:
        self._out.news(text)
        self._out.sink.put(Incident(at=now, kind=kind, text=words(text)))


def _move_words(entry: Entry, update: Update, reason: str) -> str:
    text = f"{update.release.name} {update.release.version}: {entry.source} -> {entry.state} ({entry.trigger})"
    return f"{text}: {reason}" if reason else text


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start is not None and end is not None else None
