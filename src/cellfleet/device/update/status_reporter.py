"""After each tick: the report is left for the server, and the status is written for people."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cellfleet.device.interfaces import Slot
from cellfleet.device.server.server_sync import ServerSync
from cellfleet.device.system.home import Home
from cellfleet.device.system.identity import DeviceRecord
from cellfleet.device.update import reported_state
from cellfleet.device.update.agent import Agent
from cellfleet.device.update.status_file import write_status
from cellfleet.wire.enrol import DeviceFacts
from cellfleet.wire.states import ReportedState

_LOG = logging.getLogger(__name__)
Backlog = Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class Self:
    """What does not change while the agent runs.

    Attributes:
        boot_id: of this run of the agent.
    """

    record: DeviceRecord
    boot_id: str
    facts: DeviceFacts


class StatusReporter:
    """Tells of one agent.

    Args:
        backlog: items and bytes that the server has not confirmed.
    """

    def __init__(self, agent: Agent, contact: ServerSync, me: Self, backlog: Backlog) -> None:
        self._agent, self._contact, self._me, self._backlog = agent, contact, me, backlog
        self._home: Home = agent.tools.home

    def tell(self, now: datetime) -> ReportedState:
        """Leave the report and write the status."""
        agent = self._agent
        state = reported_state.reported(
            device_id=self._me.record.device_id,
            boot_id=self._me.boot_id,
            now=now,
            generation=self._contact.desired.generation if self._contact.desired else 0,
            entry=agent.journal.entry,
            slots=agent.tools.slots,
            seen=agent.seen,
            counters=agent.tools.work.counters(),
            health=reported_state.health(agent.seen, self._around()),
            facts=self._me.facts,
            reason=agent.reason,
            numbers=agent.numbers,
        )
        self._contact.leave(state)
        try:
            write_status(self._home, self._status(state))
        except OSError as e:
            _LOG.warning("%s: %s", self._home.status_file, e)
        return state

    def _around(self) -> reported_state.HostStatus:
        items, size = self._backlog()
        return reported_state.HostStatus(
            disk_free_mb=free_mb(self._home),
            min_free_mb=self._agent.tools.settings.device.min_free_mb,
            spool_items=items,
            spool_bytes=size,
            clock_offset_s=self._contact.clock_offset_s,
            server_trouble=self._contact.trouble_text,
            problems=self._agent.problems,
        )

    def _status(self, state: ReportedState) -> dict[str, Any]:
        """The report's fields, and what only people beside the instrument want to know."""
        agent, slots = self._agent, self._agent.tools.slots
        facts = state.model_dump(mode="json", exclude={"facts", "protocol", "sequence"})
        for role in ("active", "previous", "candidate"):
            if facts[role] is not None:
                facts[role]["label"] = _label(slots.find(facts[role]["sha256"]))
        return {
            **facts,
            "name": self._me.record.name,
            "reason": agent.reason,
            "server": {"url": self._me.record.server, "trouble": self._contact.trouble_text},
            "update": reported_state.row(
                agent.journal.entry.update, agent.journal.entry.state, agent.reason, agent.numbers
            ),
            "pids": {
                **_children(self._home),
                "agent": os.getpid(),
                "segmenters": [{"slot": slot, "pid": pid} for slot, pid in agent.seen.pids],
            },
        }


def free_mb(home: Home) -> float:
    """Free space on the disk that holds HOME, MB."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(home.root).free / 1e6
    return 0.0


def _label(slot: Slot | None) -> str:
    return slot.label if slot is not None else ""


def _children(home: Home) -> dict[str, int]:
    """Processes of the launcher."""
    try:
        found: dict[str, int] = json.loads(home.children_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found
