"""After each tick, submits the report to the server sync and writes the status file."""

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
from cellfleet.wire.reason import english
from cellfleet.wire.states import ReportedState

_LOG = logging.getLogger(__name__)
Backlog = Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class AgentInfo:
    """Facts that do not change while the agent runs.

    Attributes:
        record: identity of the instrument.
        boot_id: of this run of the agent.
        facts: versions and hardware.
    """

    record: DeviceRecord
    boot_id: str
    facts: DeviceFacts


class StatusReporter:
    """Reports the state of one agent.

    Args:
        agent: its newest state is read.
        server_sync: sends the report.
        info: facts that do not change.
        backlog: returns the number of items and of bytes that the server has not confirmed.
        free: returns the free space of the disk that holds HOME, MB.
    """

    def __init__(
        self,
        agent: Agent,
        server_sync: ServerSync,
        info: AgentInfo,
        backlog: Backlog,
        free: Callable[[Home], float] | None = None,
    ) -> None:
        self._agent, self._server_sync, self._info, self._backlog = agent, server_sync, info, backlog
        self._home: Home = agent.context.home
        self._free = free or free_mb

    def report(self, now: datetime) -> ReportedState:
        """Submit the report to the server sync and write the status file. Returns the report."""
        agent = self._agent
        state = reported_state.reported(
            device_id=self._info.record.device_id,
            boot_id=self._info.boot_id,
            now=now,
            generation=self._server_sync.desired.generation if self._server_sync.desired else 0,
            entry=agent.journal.entry,
            slots=agent.context.slots,
            snapshot=agent.snapshot,
            counters=agent.context.scheduler.counters(),
            health=reported_state.health(agent.snapshot, self._host_status()),
            facts=self._info.facts,
            reason=agent.reason,
            numbers=agent.numbers,
        )
        self._server_sync.submit(state)
        try:
            write_status(self._home, self._status(state))
        except OSError as e:
            _LOG.warning("%s: %s", self._home.status_file, e)
        return state

    def _host_status(self) -> reported_state.HostStatus:
        items, size = self._backlog()
        return reported_state.HostStatus(
            disk_free_mb=self._free(self._home),
            min_free_mb=self._agent.context.settings.device.min_free_mb,
            spool_items=items,
            spool_bytes=size,
            clock_offset_s=self._server_sync.clock_offset_s,
            server_problem=self._server_sync.problem_reason,
            problems=self._agent.problems,
        )

    def _status(self, state: ReportedState) -> dict[str, Any]:
        """The fields of the report, and those that only operators at the instrument need."""
        agent, slots = self._agent, self._agent.context.slots
        facts = state.model_dump(mode="json", exclude={"facts", "protocol", "sequence"})
        for role in ("active", "previous", "candidate"):
            if facts[role] is not None:
                facts[role]["label"] = _label(slots.find(facts[role]["sha256"]))
        return {
            **facts,
            "name": self._info.record.name,
            "reason": english(agent.reason),
            "server": {"url": self._info.record.server, "trouble": english(self._server_sync.problem_reason)},
            "update": reported_state.row(
                agent.journal.entry.update, agent.journal.entry.state, agent.reason, agent.numbers
            ),
            "pids": {
                **_children(self._home),
                "agent": os.getpid(),
                "segmenters": [{"slot": slot, "pid": pid} for slot, pid in agent.snapshot.pids],
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
    """Processes of the launcher: name -> process id."""
    try:
        found: dict[str, int] = json.loads(home.children_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: pid for name, pid in found.items() if name != "format_version"}
