"""Going back: from a bad slot to the one before, and from a damaged one to one that is whole. Needs no network."""

from __future__ import annotations

from datetime import datetime

from cellfleet.device.interfaces import Scheduler, Slot
from cellfleet.device.slots import Slots
from cellfleet.device.update.journal import Journal, Update


def go_back(slots: Slots, work: Scheduler, update: Update, now: datetime) -> Slot | None:
    """Pointer back, experiments pinned anew, the bad slot removed; the same again after a power cut.

    Returns:
        The slot that is active now; None when there is none to go back to.
    """
    sha256 = update.release.sha256
    bad = slots.find(sha256) or lost_slot(slots, sha256, update.release.name, update.release.version)
    good = slots.fallback(sha256) if slots.pointer.active == sha256 else slots.intact(slots.pointer.active)
    slots.roll_back(sha256, good.sha256 if good is not None else "", now.isoformat())
    work.switch(good)
    work.repin(bad, good, update.activated_at or now, update.reason or "it was rolled back")
    work.cool(bad)
    if sha256 not in work.pinned():
        slots.remove(sha256)
    return good


def repair(slots: Slots, work: Scheduler, journal: Journal, now: datetime) -> str:
    """When the active slot's bytes are not the right ones any more: go back, and let the desired state bring it again.

    Returns:
        What was found, in words; empty: nothing.
    """
    sha256 = slots.pointer.active
    if not sha256 or slots.intact(sha256) is not None:
        return ""
    found = slots.find(sha256)
    bad = found or lost_slot(slots, sha256, "", "")
    good = slots.fallback(sha256)
    last = journal.entry.update
    if last is not None and journal.entry.state == "idle" and last.release.sha256 == sha256:
        again = {
            "settled": False,
            "attempts": 0,
            "outcome": "running",
            "reason": "its slot was damaged; it comes again",
        }
        page = {"update": last.model_copy(update=again), "source": "", "trigger": ""}
        journal.write(journal.entry.model_copy(update=page))
    work.repin(bad, good, now, "the files of its bundle are damaged on this instrument")
    slots.roll_back(sha256, good.sha256 if good is not None else "", now.isoformat())
    instead = good.label if good is not None else "nothing; frames wait for their masks"
    return f"the active slot {found.label if found else sha256[:12]} is damaged; now active: {instead}"


def lost_slot(slots: Slots, sha256: str, name: str, version: str) -> Slot:
    """Stands for a slot whose facts cannot be read."""
    return Slot(folder=slots.folder_of(sha256), sha256=sha256, name=name, version=version, counter=0)
