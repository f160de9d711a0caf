"""Rolls back from a bad slot to the previous one, and repairs a damaged active slot. Needs no network."""

from __future__ import annotations

from datetime import datetime

from cellfleet.device.interfaces import Scheduler, Slot
from cellfleet.device.slots import Slots
from cellfleet.device.update.journal import Journal, Update
from cellfleet.wire.reason import Reason, because


def roll_back(slots: Slots, scheduler: Scheduler, update: Update, now: datetime) -> Slot | None:
    """Restore the pointer, repin experiments, remove the bad slot. May run again after a power cut.

    Args:
        slots: installed slots.
        scheduler: repins the experiments.
        update: the bad update.
        now: time.

    Returns:
        The slot that is active now; None when no other slot is intact.

    Raises:
        StorageError: the disk refuses; run it again.
    """
    sha256 = update.release.sha256
    bad = slots.find(sha256) or lost_slot(slots, sha256, update.release.name, update.release.version)
    good = slots.fallback(sha256) if slots.pointer.active == sha256 else slots.intact(slots.pointer.active)
    slots.roll_back(sha256, good.sha256 if good is not None else "", now.isoformat())
    scheduler.switch(good)
    scheduler.repin(bad, good, update.activated_at or now, update.reason or because("pin.rolled-back"))
    scheduler.stop_unneeded(bad)
    if sha256 not in scheduler.pinned():
        slots.remove(sha256)
    return good


def repair(slots: Slots, scheduler: Scheduler, journal: Journal, now: datetime) -> Reason | None:
    """Replace an active slot whose bytes are damaged by an intact one; the desired state installs it again.

    Experiments are repinned before the pointer changes, so that after a power cut between the two the repair runs again.

    Args:
        slots: installed slots.
        scheduler: repins the experiments.
        journal: an update to the damaged slot is reopened.
        now: time.

    Returns:
        The reason for the report; None when the active slot is intact or there is none.

    Raises:
        StorageError: the disk refuses; run it again.
    """
    sha256 = slots.pointer.active
    if not sha256 or slots.intact(sha256) is not None:
        return None
    found = slots.find(sha256)
    bad = found or lost_slot(slots, sha256, "", "")
    good = slots.fallback(sha256)
    last = journal.entry.update
    if last is not None and journal.entry.state == "idle" and last.release.sha256 == sha256:
        again = {
            "settled": False,
            "attempts": 0,
            "outcome": "running",
            "reason": because("update.comes-again"),
        }
        page = {"update": last.model_copy(update=again), "source": "", "trigger": ""}
        journal.write(journal.entry.model_copy(update=page))
    scheduler.repin(bad, good, now, because("pin.damaged"))
    slots.roll_back(sha256, good.sha256 if good is not None else "", now.isoformat())
    name = found.label if found else sha256[:12]
    if good is None:
        return because("slot.damaged-only", bad=name)
    return because("slot.damaged", bad=name, good=good.label)


def lost_slot(slots: Slots, sha256: str, name: str, version: str) -> Slot:
    """Placeholder for a slot whose facts cannot be read.

    Args:
        slots: installed slots.
        sha256: of the slot.
        name: of the model; empty: unknown.
        version: of the model; empty: unknown.
    """
    return Slot(folder=slots.folder_of(sha256), sha256=sha256, name=name, version=version, counter=0)
