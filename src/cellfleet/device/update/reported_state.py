"""What the agent tells of itself: the reported state for the server, and the same with more for ``device status``. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cellfleet.device.interfaces import Slot, WorkSnapshot
from cellfleet.device.slots import Pointer, Slots
from cellfleet.device.update.journal import Entry, Update
from cellfleet.wire.enrol import DeviceFacts
from cellfleet.wire.plain import made_plain, words
from cellfleet.wire.states import Counters, Health, ReportedState, SlotReport, UpdateReport


@dataclass(frozen=True)
class HostStatus:
    """What is seen beside the frames.

    Attributes:
        disk_free_mb: of the disk that holds HOME.
        min_free_mb: below it the camera waits.
        spool_items, spool_bytes: not confirmed by the server yet.
        server_trouble: words; empty: none.
        problems: of the agent itself.
    """

    disk_free_mb: float = 0.0
    min_free_mb: float = 0.0
    spool_items: int = 0
    spool_bytes: int = 0
    clock_offset_s: float = 0.0
    server_trouble: str = ""
    problems: tuple[str, ...] = ()


def slot_report(slot: Slot | None, since: str) -> SlotReport | None:
    """A slot as the server is told of it."""
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


def update_report(entry: Entry, reason: str, numbers: dict[str, Any]) -> UpdateReport | None:
    """How the latest update stands; ``reason`` and ``numbers`` are newer than the journal where they are not empty."""
    update = entry.update
    if update is None:
        return None
    return UpdateReport(
        deployment_id=update.deployment_id,
        release_id=None if update.folder else update.release.release_id,
        state=entry.state,
        outcome=update.outcome,
        reason=words(reason or update.reason),
        numbers=made_plain({**update.numbers, **numbers}),
        started_at=update.started_at,
        changed_at=update.changed_at,
        bytes_downloaded=update.bytes_downloaded,
        update_s=update.update_s,
        activation_pause_s=update.activation_pause_s,
        recovery_s=update.recovery_s,
    )


def health(seen: WorkSnapshot, around: HostStatus) -> Health:
    """How the instrument is, problems in words."""
    problems = [*seen.problems, *around.problems]
    if around.disk_free_mb < around.min_free_mb:
        problems.append(f"the disk is nearly full: {around.disk_free_mb:.0f} MB free, {around.min_free_mb:.0f} needed")
    if around.server_trouble:
        problems.append(around.server_trouble)
    return Health(
        disk_free_mb=max(0.0, around.disk_free_mb),
        queue_frames=seen.pending,
        spool_items=around.spool_items,
        spool_mb=around.spool_bytes / 1e6,
        segmenter_memory_mb=sum(seen.memory_mb.values()),
        segmenter_restarts=seen.restarts,
        camera=seen.camera,
        segmenter=seen.segmenter,
        clock_offset_s=around.clock_offset_s,
        problems=tuple(words(p) for p in dict.fromkeys(problems))[:32],
    )


def reported(
    *,
    device_id: str,
    boot_id: str,
    now: datetime,
    generation: int,
    entry: Entry,
    slots: Slots,
    seen: WorkSnapshot,
    counters: Counters,
    health: Health,
    facts: DeviceFacts,
    reason: str = "",
    numbers: dict[str, Any] | None = None,
) -> ReportedState:
    """The reported state; its sequence is given when it is sent."""
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
        experiment=seen.experiment,
        counters=counters,
        health=health,
        facts=facts,
    )


def row(update: Update | None, state: str, reason: str, numbers: dict[str, Any]) -> dict[str, Any] | None:
    """An update for ``status.json``: its report's fields and those that concern this instrument alone."""
    if update is None:
        return None
    facts = update.model_dump(mode="json", exclude={"release", "tally", "agent", "window"})
    newer = {"reason": reason or update.reason, "numbers": {**update.numbers, **numbers}}
    named = {"state": state, "name": update.release.name, "version": update.release.version}
    return {**facts, **newer, **named, "sha256": update.release.sha256}
