"""The agent: polls, decides, writes its journal, acts. ``state_machine`` holds its states and transitions.

Long actions run in a background task beside the loop, so that frames are segmented while an update is installed.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cellfleet.device.camera.inhibit_lease import read_leases
from cellfleet.device.interfaces import EventSink, WorkSnapshot
from cellfleet.device.server.server_sync import ServerSync
from cellfleet.device.system.error_reasons import error_reason
from cellfleet.device.system.retry import Backoff
from cellfleet.device.system.versioned_file import VersionedFile, WriteFn
from cellfleet.device.update import transitions
from cellfleet.device.update.actions import ActionContext, run_action
from cellfleet.device.update.background_task import BackgroundTask
from cellfleet.device.update.install_requests import drop_request, next_request
from cellfleet.device.update.journal import Entry, Journal, Tally, Update
from cellfleet.device.update.policy import (
    is_active_already,
    is_recovering,
    is_wanted,
    is_withdrawn,
    limits_of,
    may_retry,
    waits_for,
)
from cellfleet.device.update.probation import KEPT_TIMES, add, judge, median_ms
from cellfleet.device.update.rollback import repair, roll_back
from cellfleet.device.update.state_machine import BEFORE_ACTIVATION
from cellfleet.device.update.transitions import ActionResult
from cellfleet.errors import CellfleetError
from cellfleet.ports import write_atomic
from cellfleet.wire.reason import Reason, because, english
from cellfleet.wire.telemetry_events import AgentMoved, Incident

_LOG = logging.getLogger(__name__)
_MAX_STEPS_PER_TICK = 40
News = Callable[[str], None]


@dataclass(frozen=True)
class AgentPorts:
    """Ports of the agent.

    Attributes:
        server_sync: holds the desired state.
        sink: takes events for the server.
        background: runs long actions.
        news: takes progress messages, one line each.
        jitter: random numbers from 0 to 1.
        write: writes a file durably; tests bring one that fails.
    """

    server_sync: ServerSync
    sink: EventSink
    background: BackgroundTask[ActionResult]
    news: News = _LOG.info
    jitter: Callable[[], float] = random.random
    write: WriteFn = write_atomic


class Agent:
    """The agent of one instrument. Call ``start`` once, then ``tick`` repeatedly.

    Attributes:
        journal: the newest page holds the state.
        reason: why the agent waits; newer than the journal's.
        numbers: of a running probation.
        problems: errors of the latest tick.
        snapshot: of the latest tick.
    """

    def __init__(self, context: ActionContext, journal: Journal, ports: AgentPorts) -> None:
        self.context, self.journal, self._ports = context, journal, ports
        self._slots, self._scheduler, self._clock = context.slots, context.scheduler, context.clock
        self._reported = VersionedFile(context.home.state, "told", ports.write)
        self._times: deque[float] = deque(maxlen=KEPT_TIMES)
        self.reason: Reason | None = None
        self.numbers: dict[str, Any] = {}
        self.problems: tuple[Reason, ...] = ()
        self.snapshot = WorkSnapshot()

    def start(self) -> None:
        """Resume from the files of the previous process."""
        now = self._clock.now()
        for name in (*self.journal.damaged, *self._slots.damaged):
            self._incident("state-damaged", because("state.damaged", file=name), now)
        if self.journal.entry.state == "idle" or self.journal.entry.state in BEFORE_ACTIVATION:
            self._repair(now)
        self._scheduler.switch(self._slots.get("active"))
        reported = self._reported.read().content
        if self.journal.entry.trigger and self.journal.entry.number != reported:
            self._report_transition(self.journal.entry, self.journal.entry.update)

    def tick(self) -> None:
        """Poll, decide, act. Short, except with an inline background task. After a disk error the next tick retries."""
        now = self._clock.now()
        problems: list[Reason] = []
        self.snapshot = WorkSnapshot()
        try:
            self.snapshot = self._scheduler.poll(now)
            self._note_frames(self.snapshot)
            for _ in range(_MAX_STEPS_PER_TICK):
                if not self.step(now):
                    break
        except CellfleetError as e:
            _LOG.warning("%s", e.message)
            problems.append(error_reason(e))
        self.problems = tuple(problems)

    @property
    def state(self) -> str:
        """The current state."""
        return self.journal.entry.state

    def step(self, now: datetime) -> bool:
        """Make at most one transition. Returns True when another step may follow at once."""
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
        return self._run_action(entry.update, now)

    def _idle(self, entry: Entry, now: datetime) -> bool:
        if entry.state != "idle":  # a page of another version, without an update: nothing to resume
            self.journal.write(Entry(entered_at=now))
            return True
        self._remove_candidate()
        last = entry.update
        self._note_recovery(last)
        if not self._may_begin(last, now):
            return False
        if (wanted := self._wanted(last, now)) is None:
            return False
        if wanted.settled:
            self._slots.note_deployment(wanted.release.sha256, wanted.deployment_id)
            self._save(wanted, now)
            return True
        self._transition(wanted, ActionResult("update-wanted", wanted.reason), now)
        if wanted.request:
            drop_request(self.context.home, wanted.request)
        return True

    def _wanted(self, last: Update | None, now: datetime) -> Update | None:
        """The next update: an operator's request, a retry from a folder, or the desired state; None: there is none."""
        active = self._slots.pointer.active
        request = next_request(self.context.home)
        if request is not None:
            if last is not None and last.request == request.name:
                drop_request(self.context.home, request.name)
            else:
                update = transitions.begin_request(request.release, request.folder, request.name, now)
                return transitions.already_active(update, now) if request.release.sha256 == active else update
        if last is not None and last.folder and not last.settled:
            return last.model_copy(update={"not_before": None}) if may_retry(last, now) else None
        server_sync = self._ports.server_sync
        desired = server_sync.desired
        if desired is None:
            return None
        arrived_at = server_sync.arrived_at or now
        if last is not None and server_sync.back_at is not None and server_sync.back_at > last.changed_at:
            last = last.model_copy(update={"not_before": None})
        if is_wanted(desired, active, last, now):
            return transitions.begin(desired, last, arrived_at, now)
        if is_active_already(desired, self._slots.get("active"), last):
            return transitions.already_active(transitions.begin(desired, last, arrived_at, now), now)
        return None

    def _may_begin(self, last: Update | None, now: datetime) -> bool:
        """Whether the server knows the outcome of the latest update, with all times: a report holds one update only."""
        server_sync = self._ports.server_sync
        if last is None or not last.settled or server_sync.problem:
            return True
        return not is_recovering(last, now) and server_sync.has_reported(
            last.deployment_id, last.outcome, last.recovery_s
        )

    def _run_action(self, update: Update, now: datetime) -> bool:
        """Start the state's action in the background, or take its result."""
        state, background = self.journal.entry.state, self._ports.background
        withdrawn = state in BEFORE_ACTIVATION and is_withdrawn(update, self._ports.server_sync.desired)
        if withdrawn:
            self.context.cancelled.set()
        if not background.busy:
            self.context.cancelled.clear()
            if withdrawn:
                self._transition(update, ActionResult("withdrawn", because("update.withdrawn")), now)
            else:
                background.start(lambda: run_action(self.context, state, update))
            return True
        result = background.result()
        if result is None:
            return False
        if withdrawn:
            return True
        self._transition(update, self._activate(result, update, now) if state == "activating" else result, now)
        return True

    def _deferred(self, update: Update, now: datetime) -> bool:
        desired = self._ports.server_sync.desired
        if is_withdrawn(update, desired):
            self._transition(update, ActionResult("withdrawn", because("update.withdrawn")), now)
            return True
        window = desired.window if desired is not None and not update.folder else update.window
        reason = waits_for(read_leases(self.context.home.inhibit)[0], window, now)
        if reason:
            if update.outcome != "deferred":
                self._save(update.model_copy(update={"outcome": "deferred", "reason": reason}), now)
            self.reason = reason
            return False
        tally = Tally(base_ms=median_ms(self._times))
        changes = {"previous_sha256": self._slots.pointer.active, "tally": tally}
        self._transition(update, ActionResult("may-activate", because("update.may-activate"), changes=changes), now)
        return True

    def _activate(self, result: ActionResult, update: Update, now: datetime) -> ActionResult:
        """Write the pointer when the segmenter is ready. May run again after a power cut."""
        sha256 = update.release.sha256
        if result.event == "activated":
            self._slots.activate(sha256, now.isoformat())
            self._scheduler.switch(self._slots.find(sha256))
        elif self._slots.pointer.active == sha256:
            result = replace(result, event="bad")
        if self._slots.pointer.active != sha256:
            return result
        since = datetime.fromisoformat(self._slots.pointer.active_since)
        return replace(result, changes={**result.changes, "activated_at": since})

    def _probation(self, update: Update, now: datetime) -> bool:
        sha256, before = update.release.sha256, update.tally
        tally = add(before, self.snapshot, sha256)
        pause = update.activation_pause_s
        if before.segmented == 0:
            pause = max(pause or 0.0, self.snapshot.gap_s)
        limits, _ = limits_of(self.context.settings.agent, update.agent)
        verdict = judge(tally, limits, update.activated_at or now, now)
        changes = {"tally": tally, "activation_pause_s": pause}
        self.reason, self.numbers = verdict.reason, {"probation": verdict.numbers}
        if verdict.event is None and self._slots.find(sha256) is None:
            verdict = replace(verdict, event="bad", reason=because("update.slot-damaged"))
        if verdict.event is not None:
            self._transition(update, ActionResult(verdict.event, verdict.reason, self.numbers, changes), now)
            return True
        if tally != before or pause != update.activation_pause_s:
            self._save(update.model_copy(update=changes), now)
        return False

    def _commit(self, update: Update, now: datetime) -> bool:
        self._slots.commit(update.release.sha256, now.isoformat())
        self._slots.sweep(self.context.settings.agent.keep_slots, self._scheduler.pinned())
        self._transition(update, ActionResult("committed"), now)
        return True

    def _roll_back(self, update: Update, now: datetime) -> bool:
        found_s = _seconds(update.activated_at, update.bad_at)
        good = roll_back(self._slots, self._scheduler, update, now)
        text = f"rolled back to {good.label}" if good is not None else "there is no slot to roll back to"
        why = english(update.reason)
        self._ports.news(f"{update.release.name} {update.release.version} is bad: {why}; {text}")
        numbers = {"rollback": {"found_s": found_s, "to": good.label if good is not None else ""}}
        self._transition(update, ActionResult("rolled-back", numbers=numbers), now)
        return True

    def _remove_candidate(self) -> None:
        """Remove the candidate of a refused or withdrawn update: an idle agent has none."""
        sha256 = self._slots.pointer.candidate
        if sha256:
            if (slot := self._slots.find(sha256)) is not None:
                self._scheduler.stop_unneeded(slot)
            self._slots.name_candidate("")
            if sha256 not in self._scheduler.pinned():
                self._slots.remove(sha256)

    def _repair(self, now: datetime) -> None:
        """Replace a damaged active slot by an intact one, or by none."""
        damage = repair(self._slots, self._scheduler, self.journal, now)
        if damage:
            self._incident("slot-damaged", damage, now)

    def _note_frames(self, snapshot: WorkSnapshot) -> None:
        """Record frame times of the active slot; the next slot is compared with them."""
        active = self._slots.pointer.active
        self._times.extend(f.milliseconds for f in snapshot.frames if f.slot == active and f.result == "segmented")

    def _note_recovery(self, last: Update | None) -> None:
        """Record when the restored slot segments its first frame after a rollback."""
        if last is None or last.outcome != "rolled-back" or last.recovery_s is not None or last.bad_at is None:
            return
        active, bad_at = self._slots.pointer.active, last.bad_at
        segmented = [
            f.at for f in self.snapshot.frames if f.slot == active and f.result == "segmented" and f.at >= bad_at
        ]
        if segmented:
            recovery_s = _seconds(last.activated_at, min(segmented))
            self._save(last.model_copy(update={"recovery_s": recovery_s}), last.changed_at)

    def _save(self, update: Update, now: datetime) -> None:
        """Write a page without a transition."""
        entry = self.journal.entry
        changed = update.model_copy(update={"changed_at": now})
        self.journal.write(entry.model_copy(update={"update": changed, "source": "", "trigger": ""}))

    def _transition(self, update: Update, result: ActionResult, now: datetime) -> None:
        limits, _ = limits_of(self.context.settings.agent, update.agent)
        backoff = Backoff(limits.retry_s, self._ports.jitter())
        if result.event != "update-wanted" and result.event != "may-activate":
            self.reason, self.numbers = None, {}
        self.journal.write(transitions.advance(self.journal.entry, update, result, now, backoff))
        entry = self.journal.entry
        self._ports.news(_transition_line(entry, update, result.reason))
        if entry.state in ("probation", "rolling-back"):
            self._times.clear()  # another slot is active from here on
        self._report_transition(entry, entry.update or update)

    def _report_transition(self, entry: Entry, update: Update | None) -> None:
        self._ports.sink.put(
            AgentMoved(
                at=entry.entered_at or self._clock.now(),
                source=entry.source,
                target=entry.state,
                trigger=entry.trigger,
                deployment_id=update.deployment_id if update else None,
                release_id=update.release_id if update else None,
                reason=english(update.reason) if update else "",
                reason_data=update.reason if update else None,
            )
        )
        self._reported.write(entry.number)

    def _incident(self, kind: str, reason: Reason, now: datetime) -> None:
        text = english(reason)
        self._ports.news(text)
        self._ports.sink.put(Incident(at=now, kind=kind, text=text, reason_data=reason))


def _transition_line(entry: Entry, update: Update, reason: Reason | None) -> str:
    text = f"{update.release.name} {update.release.version}: {entry.source} -> {entry.state} ({entry.trigger})"
    return f"{text}: {english(reason)}" if reason else text


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start is not None and end is not None else None
