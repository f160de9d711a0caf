"""The reported state for the server, and the update's row for ``device status``. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cellfleet.device.interfaces import Slot, WorkSnapshot
from cellfleet.device.slots import Pointer, Slots
from cellfleet.device.update.journal import Entry, Update
from cellfleet.wire.enrol import DeviceFacts
from cellfleet.wire.plain_json import made_plain
from cellfleet.wire.reason import Reason, because, english
from cellfleet.wire.states import Counters, Health, ReportedState, SlotReport, UpdateReport

_MAX_PROBLEMS = 32


@dataclass(frozen=True)
class HostStatus:
    """Facts of the host and of the connection.

    Attributes:
        disk_free_mb: free space of the disk that holds HOME.
        min_free_mb: below it the camera waits.
        spool_items, spool_bytes: not yet confirmed by the server.
        clock_offset_s: the server's clock minus the local clock.
        server_problem: why the server cannot be reached; None: it can.
        problems: of the agent itself.
    """

    disk_free_mb: float = 0.0
    min_free_mb: float = 0.0
    spool_items: int = 0
    spool_bytes: int = 0
    clock_offset_s: float = 0.0
    server_problem: Reason | None = None
    problems: tuple[Reason, ...] = ()


def slot_report(slot: Slot | None, since: str) -> SlotReport | None:
    """Describe a slot for the server.

    Args:
        slot: None: there is none in this role.
        since: ISO time at which it got its role; empty: that of its installation.
    """
    if slot is None:
        return None
    return SlotReport(
        release_id=slot.release_id,
        name=slot.name,
        version=slot.version,
        counter=slot.counter,
        sha256=slot.sha256,
        variant=slot.variant,
        run_digest=slot.run_digest,
        since=datetime.fromisoformat(since or slot.installed_at),
    )


def update_report(entry: Entry, reason: Reason | None, numbers: dict[str, Any]) -> UpdateReport | None:
    """Describe the latest update for the server.

    Args:
        entry: newest page of the journal.
        reason: replaces the journal's; None: the journal's.
        numbers: replace the journal's, by key.
    """
    update = entry.update
    if update is None:
        return None
    why = reason or update.reason
    return UpdateReport(
        deployment_id=update.deployment_id,
        release_id=update.release_id,
        state=entry.state,
        outcome=update.outcome,
        reason=english(why),
        reason_data=why,
        numbers=made_plain({**update.numbers, **numbers}),
        started_at=update.started_at,
        changed_at=update.changed_at,
        bytes_downloaded=update.bytes_downloaded,
        update_s=update.update_s,
        activation_pause_s=update.activation_pause_s,
        recovery_s=update.recovery_s,
    )


def health(snapshot: WorkSnapshot, host: HostStatus) -> Health:
    """Health of the instrument.

    Args:
        snapshot: of the latest poll.
        host: facts of the host.

    Returns:
        Numbers and at most 32 different problems.
    """
    problems = [*snapshot.problems, *host.problems]
    if host.disk_free_mb < host.min_free_mb:
        problems.append(because("camera.disk-full", free_mb=host.disk_free_mb, limit_mb=host.min_free_mb))
    if host.server_problem:
        problems.append(host.server_problem)
    different = list({english(p): p for p in problems}.items())[:_MAX_PROBLEMS]
    return Health(
        disk_free_mb=max(0.0, host.disk_free_mb),
        queue_frames=snapshot.pending,
        spool_items=host.spool_items,
        spool_mb=host.spool_bytes / 1e6,
        segmenter_memory_mb=sum(snapshot.memory_mb.values()),
        segmenter_restarts=snapshot.restarts,
        camera=snapshot.camera,
        segmenter=snapshot.segmenter,
        clock_offset_s=host.clock_offset_s,
        problems=tuple(text for text, _ in different),
        problems_data=tuple(reason for _, reason in different),
    )


def reported(
    *,
    device_id: str,
    boot_id: str,
    now: datetime,
    generation: int,
    entry: Entry,
    slots: Slots,
    snapshot: WorkSnapshot,
    counters: Counters,
    health: Health,
    facts: DeviceFacts,
    reason: Reason | None = None,
    numbers: dict[str, Any] | None = None,
) -> ReportedState:
    """Compose the reported state. Its sequence number is set when it is sent.

    Args:
        device_id: of this instrument.
        boot_id: of this run of the agent.
        now: time of the report.
        generation: of the newest desired state; 0: none yet.
        entry: newest page of the journal.
        slots: installed slots.
        snapshot: of the latest poll.
        counters: frames since provisioning.
        health: of the instrument.
        facts: versions and hardware.
        reason: newer than the journal's; None: the journal's.
        numbers: newer than the journal's, by key.
    """
    p: Pointer = slots.pointer
    return ReportedState(
        device_id=device_id,
        sequence=0,
        boot_id=boot_id,
        at=now,
        generation=generation,
        state=entry.state,
        active=slot_report(slots.get("active"), p.active_since),
        previous=slot_report(slots.get("previous"), p.previous_since),
        candidate=slot_report(slots.get("candidate"), ""),
        update=update_report(entry, reason, numbers or {}),
        experiment=snapshot.experiment,
        counters=counters,
        health=health,
        facts=facts,
    )


def row(update: Update | None, state: str, reason: Reason | None, numbers: dict[str, Any]) -> dict[str, Any] | None:
    """The update in ``status.json``: fields of the report, and those that only this instrument needs.

    Args:
        update: None: there was none.
        state: of the agent.
        reason: newer than the update's; None: the update's.
        numbers: newer than the update's, by key.
    """
    if update is None:
        return None
    facts = update.model_dump(mode="json", exclude={"release", "tally", "agent", "window"})
    newer = {"reason": english(reason or update.reason), "numbers": {**update.numbers, **numbers}}
    named = {"state": state, "name": update.release.name, "version": update.release.version}
    return {**facts, **newer, **named, "sha256": update.release.sha256}
