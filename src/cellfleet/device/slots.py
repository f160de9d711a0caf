"""Slots: installed artifacts, and the pointer that says which of them is active.

A slot is a folder, written under a temporary name and then renamed; the pointer is a versioned file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cellfleet.canonical import canonical_bytes, sha256_file
from cellfleet.device.interfaces import Slot
from cellfleet.device.system.home import Home
from cellfleet.device.system.versioned_file import VersionedFile, WriteFn
from cellfleet.errors import DeviceError
from cellfleet.ports import make_dir, write_atomic
from cellfleet.ports.disk import move_into_place, storage_error

Role = Literal["active", "previous", "candidate"]
_FACTS = "slot.json"
_COMMITTED = "committed_at"
_FORMAT = 1


@dataclass(frozen=True)
class Pointer:
    """The slots that have a role: their SHA-256, or empty.

    Attributes:
        active_since, previous_since: ISO times.
    """

    active: str = ""
    previous: str = ""
    candidate: str = ""
    active_since: str = ""
    previous_since: str = ""


class Slots:
    """The slots of an instrument.

    Attributes:
        pointer: the newest one.
        damaged: names of pointer files that were skipped when the slots were opened.
    """

    def __init__(self, home: Home, write: WriteFn = write_atomic) -> None:
        self._home, self._write = home, write
        self._file = VersionedFile(home.state, "slots", write)
        newest = self._file.read()
        self.damaged = newest.damaged
        self.pointer = _pointer(newest.content)

    def get(self, role: Role) -> Slot | None:
        """The slot with a role, or None."""
        sha256 = getattr(self.pointer, role)
        return self.find(sha256) if sha256 else None

    def find(self, sha256: str) -> Slot | None:
        """The slot of an artifact, by its SHA-256; its bytes are not read."""
        folder = self.folder_of(sha256)
        slot = _read_slot(folder)
        return slot if slot is not None and slot.sha256 == sha256 and slot.bundle.is_file() else None

    def intact(self, sha256: str) -> Slot | None:
        """The slot of an artifact, by its SHA-256, when its bytes have that digest."""
        slot = self.find(sha256) if sha256 else None
        if slot is None:
            return None
        try:
            return slot if sha256_file(slot.bundle) == sha256 else None
        except OSError:
            return None

    def fallback(self, bad: str) -> Slot | None:
        """The slot to restore instead of a bad one: the previous slot if it is intact, else the newest intact committed one."""
        p = self.pointer
        if p.previous not in ("", bad) and (slot := self.intact(p.previous)) is not None:
            return slot
        others = [s for s in self._all() if s.sha256 not in (bad, p.candidate, p.previous) and _COMMITTED in s.numbers]
        newest = sorted(others, key=lambda s: s.installed_at, reverse=True)
        return next((s for s in newest if self.intact(s.sha256) is not None), None)

    def counters(self) -> dict[tuple[str, str], int]:
        """Release counter of the active slot by kind and name: the minimum for a new installation."""
        slot = self.get("active")
        return {(slot.kind, slot.name): slot.counter} if slot else {}

    def install(self, artifact: Path, facts: Slot) -> Slot:
        """Write a verified artifact into its slot: copy or link it to a temporary folder, check, sync, rename.

        Args:
            artifact: the file.
            facts: of the slot; its folder is set here.

        Returns:
            The slot as it is stored.

        Raises:
            DeviceError: the bytes in the slot do not have the SHA-256 of ``facts``.
            StorageError: the disk refuses; no part of the slot remains.
        """
        existing = self.intact(facts.sha256)
        if existing is not None:
            return self.note(replace(facts, folder=existing.folder))
        folder = self.folder_of(facts.sha256)
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        make_dir(part)
        slot = replace(facts, folder=folder)
        try:
            _place(artifact, part / slot.bundle.name, may_link=artifact.parent == self._home.downloads)
            if sha256_file(part / slot.bundle.name) != facts.sha256:
                raise DeviceError(
                    f"{part / slot.bundle.name} is not the verified artifact",
                    hint="check the disk of this instrument; the agent retries the update",
                )
            self._write(part / _FACTS, _slot_bytes(slot))
            move_into_place(part, folder)
        except OSError as e:
            raise storage_error("write", folder, e) from e
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return slot

    def note(self, slot: Slot) -> Slot:
        """Replace the facts of a slot (variant and numbers of the self-test)."""
        self._write(slot.folder / _FACTS, _slot_bytes(slot))
        return slot

    def commit(self, sha256: str, now: str) -> None:
        """Record in the facts of a slot that it passed its probation.

        Args:
            sha256: of the slot.
            now: ISO time.
        """
        slot = self.find(sha256)
        if slot is not None and _COMMITTED not in slot.numbers:
            self.note(replace(slot, numbers={**slot.numbers, _COMMITTED: now}))

    def note_deployment(self, sha256: str, deployment_id: int | None) -> None:
        """Record the deployment of an installed slot.

        Args:
            sha256: of the slot.
            deployment_id: None: keep the recorded one.
        """
        slot = self.find(sha256)
        if slot is not None and deployment_id not in (None, slot.deployment_id):
            self.note(replace(slot, deployment_id=deployment_id))

    def name_candidate(self, sha256: str) -> None:
        """Set the candidate; empty: none."""
        if self.pointer.candidate != sha256:
            self._set(replace(self.pointer, candidate=sha256))

    def activate(self, sha256: str, now: str) -> None:
        """Make a slot active and the active one previous; repeating the call changes nothing.

        Args:
            sha256: of the slot.
            now: ISO time.
        """
        p = self.pointer
        if p.active == sha256:
            return
        self._set(Pointer(sha256, p.active, "", now, p.active_since))

    def roll_back(self, bad: str, good: str, now: str) -> None:
        """Make another slot active instead of a bad one; repeating the call changes nothing.

        Args:
            bad: SHA-256 of the active slot.
            good: SHA-256 of its replacement; empty: none.
            now: ISO time.
        """
        p = self.pointer
        if p.active != bad:
            return
        since = p.previous_since if good and p.previous == good and p.previous_since else now
        self._set(Pointer(good, "", "", since if good else "", ""))

    def sweep(self, keep: int, pinned: frozenset[str] = frozenset()) -> list[str]:
        """Remove old slots.

        Args:
            keep: number of slots to keep; slots with a role and pinned ones are always kept.
            pinned: SHA-256 of slots that experiments use.

        Returns:
            SHA-256 of the removed slots.
        """
        for left in self._home.slots.glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)
        p = self.pointer
        held = {p.active, p.previous, p.candidate, *pinned} - {""}
        slots = self._all()
        others = sorted((s for s in slots if s.sha256 not in held), key=lambda s: s.installed_at, reverse=True)
        gone = others[max(0, keep - len(slots) + len(others)) :]
        for slot in gone:
            shutil.rmtree(slot.folder, ignore_errors=True)
        return [s.sha256 for s in gone]

    def remove(self, sha256: str) -> None:
        """Remove a slot, unless it has a role."""
        p = self.pointer
        if sha256 and sha256 not in (p.active, p.previous, p.candidate):
            shutil.rmtree(self.folder_of(sha256), ignore_errors=True)

    def _all(self) -> list[Slot]:
        if not self._home.slots.is_dir():
            return []
        folders = sorted(f for f in self._home.slots.iterdir() if not f.name.startswith("."))
        return [s for f in folders if (s := _read_slot(f)) is not None]

    def _set(self, pointer: Pointer) -> None:
        self._file.write(asdict(pointer))
        self.pointer = pointer

    def folder_of(self, sha256: str) -> Path:
        """The folder of an artifact's slot, whether it exists or not."""
        return self._home.slots / sha256[:12]


def _place(source: Path, target: Path, *, may_link: bool) -> None:
    """Copy a file; with ``may_link``, link it where the disk supports that."""
    linked = False
    with contextlib.suppress(OSError):
        if may_link:
            os.link(source, target)
            linked = True
    if not linked:
        shutil.copyfile(source, target)


def _slot_bytes(slot: Slot) -> bytes:
    facts = {k: v for k, v in asdict(slot).items() if k != "folder"}
    return canonical_bytes({"format_version": _FORMAT, **facts})


def _read_slot(folder: Path) -> Slot | None:
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_bytes())
        if facts.pop("format_version", _FORMAT) != _FORMAT:  # slots of older programs have none
            return None
        return Slot(folder=folder, **facts)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _pointer(content: Any) -> Pointer:
    try:
        return Pointer(**content) if content else Pointer()
    except TypeError:
        return Pointer()
