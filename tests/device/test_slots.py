"""Slots, their pointer, and numbered files: what a damaged disk does to them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.device.interfaces import Slot
from cellfleet.device.slots import Pointer, Slots
from cellfleet.device.system.home import Home
from cellfleet.device.system.versioned_file import VersionedFile
from cellfleet.device.update.journal import Entry, Journal
from cellfleet.errors import DeviceError, StorageError
from simulators.disk import CachingDisk, every_cut

NOW = "2026-03-02T12:00:00+00:00"


def artifact(home: Home, text: str) -> tuple[Path, Slot]:
    data = text.encode()
    sha256 = hashlib.sha256(data).hexdigest()
    path = home.downloads / sha256
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    facts = Slot(folder=home.slots, sha256=sha256, name=text, version="1.0.0", counter=1, installed_at=NOW)
    return path, facts


def installed(slots: Slots, home: Home, text: str, *, committed: bool = True) -> Slot:
    slot = slots.install(*artifact(home, text))
    if committed:
        slots.commit(slot.sha256, NOW)
    return slot


def spoil(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()  # the artifact may be a hard link
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_install_activate_and_roll_back(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    slots = Slots(home)
    a, b = installed(slots, home, "a"), installed(slots, home, "b")
    slots.activate(a.sha256, NOW)
    slots.name_candidate(b.sha256)
    slots.activate(b.sha256, NOW)
    slots.activate(b.sha256, "later")
    again = Slots(home)
    assert (again.pointer.active, again.pointer.previous, again.pointer.candidate) == (b.sha256, a.sha256, "")
    again.roll_back(b.sha256, a.sha256, NOW)
    again.roll_back(b.sha256, "", NOW)
    assert (Slots(home).pointer.active, Slots(home).pointer.previous) == (a.sha256, "")


def test_counters_are_those_of_the_active_slot(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    slots = Slots(home)
    assert slots.counters() == {}
    slot = installed(slots, home, "a")
    slots.activate(slot.sha256, NOW)
    assert slots.counters() == {("model", "a"): 1}


def test_other_bytes_get_no_slot(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    path, facts = artifact(home, "a")
    path.write_bytes(b"b")
    with pytest.raises(DeviceError, match="not the verified artifact"):
        Slots(home).install(path, facts)
    assert list(home.slots.iterdir()) == []


def test_a_damaged_slot_is_found_and_installed_anew(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    slots = Slots(home)
    slot = installed(slots, home, "a")
    spoil(slot.bundle)
    assert slots.find(slot.sha256) is not None
    assert slots.intact(slot.sha256) is None
    installed(slots, home, "a")
    assert slots.intact(slot.sha256) is not None


def test_an_artifact_of_somebody_else_is_copied_not_linked(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    path, facts = artifact(home, "a")
    outside = tmp_path / "stick" / "a.zip"
    outside.parent.mkdir()
    path.rename(outside)
    slot = Slots(home).install(outside, facts)
    outside.write_bytes(b"changed in place")
    assert Slots(home).intact(slot.sha256) is not None


def test_the_fallback_is_whole_and_was_committed(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    slots = Slots(home)
    a, b, c = (installed(slots, home, t) for t in "abc")
    never = installed(slots, home, "never", committed=False)
    slots.activate(b.sha256, NOW)
    slots.activate(c.sha256, NOW)
    assert slots.fallback(c.sha256) == slots.find(b.sha256)
    spoil(b.bundle)
    assert slots.fallback(c.sha256) == slots.find(a.sha256)
    spoil(a.bundle)
    assert slots.fallback(c.sha256) is None
    assert slots.intact(never.sha256) is not None


def test_sweeping_keeps_what_is_needed(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    slots = Slots(home)
    made = [installed(slots, home, t) for t in "abcdef"]
    slots.activate(made[0].sha256, NOW)
    slots.activate(made[1].sha256, NOW)
    slots.name_candidate(made[2].sha256)
    (home.slots / ".x.part").mkdir()
    gone = slots.sweep(2, frozenset({made[3].sha256}))
    assert set(gone) == {made[4].sha256, made[5].sha256}
    assert all(slots.find(s.sha256) is not None for s in made[:4])
    assert not (home.slots / ".x.part").exists()
    slots.remove(made[0].sha256)
    assert slots.find(made[0].sha256) is not None, "a slot with a role is not removed"


def test_a_full_disk_leaves_no_half_slot(tmp_path: Path) -> None:
    home = Home.at(tmp_path)

    def full(target: Path, data: bytes) -> None:
        raise StorageError(f"{target}: {len(data)} bytes too many")

    with pytest.raises(StorageError):
        Slots(home, full).install(*artifact(home, "a"))
    assert list(home.slots.iterdir()) == []


@given(st.binary(max_size=60))
def test_facts_of_a_slot_may_be_anything(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    home = Home.at(tmp_path_factory.mktemp("home"))
    slots = Slots(home)
    slot = installed(slots, home, "a")
    (slot.folder / "slot.json").write_bytes(data)
    assert slots.find(slot.sha256) is None


def test_a_journal_of_another_version_begins_anew(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    VersionedFile(home.state, "journal").write({"state": "dreaming"})
    VersionedFile(home.state, "slots").write({"acting": "x"})
    journal = Journal(home)
    assert (journal.entry.state, journal.entry.number) == ("idle", 1)
    assert Slots(home).pointer.active == ""
    journal.write(Entry(state="checking"))
    assert Journal(home).entry.state == "checking"
    assert json.loads((home.state / "journal-2.json").read_bytes())["number"] == 2


def test_a_power_cut_at_every_step_of_an_installation(tmp_path: Path) -> None:
    """The slot is there whole or not at all, also when the disk kept only what was synced; then it is installed again."""
    home = Home.at(tmp_path)
    path, facts = artifact(home, "a")
    cuts = 0
    for survived in every_cut(tmp_path, lambda: Slots(home).install(path, facts)):
        found = Slots(home).find(facts.sha256)
        assert found is not None or not survived.done, survived
        assert found is None or Slots(home).intact(facts.sha256) == found, survived
        assert Slots(home).intact(Slots(home).install(path, facts).sha256) is not None, survived
        cuts += 1
    assert cuts > 15


def test_a_slot_is_synced_before_it_has_its_name_and_its_name_before_it_counts(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    path, facts = artifact(home, "a")
    name = facts.sha256[:12]
    with CachingDisk(tmp_path) as disk:
        Slots(home).install(path, facts)
    log = disk.log()
    renamed = log.index(f"rename slots/.{name}.part -> slots/{name}")
    before, after = log[:renamed], log[renamed + 1 :]
    for what in (f"sync downloads/{facts.sha256}", f"sync slots/.{name}.part/slot.json"):  # the bundle is a link
        assert what in before, "\n".join(log)
    assert f"sync folder slots/.{name}.part" in before, log
    assert "sync folder slots" in after, log


def test_the_pointer_in_memory_is_the_one_on_the_disk(tmp_path: Path) -> None:
    """A disk that refuses leaves both as they were."""
    home = Home.at(tmp_path)
    slots = Slots(home)
    a = installed(slots, home, "a")
    slots.activate(a.sha256, NOW)

    def full(target: Path, data: bytes) -> None:
        raise StorageError(f"{target}: {len(data)} bytes too many")

    refused = Slots(home, full)
    with pytest.raises(StorageError):
        refused.activate("b" * 64, NOW)
    with pytest.raises(StorageError):
        refused.roll_back(a.sha256, "", NOW)
    assert refused.pointer == Slots(home).pointer == slots.pointer


def test_times_go_with_their_slot(tmp_path: Path) -> None:
    """The slot that comes back has been active since its own activation, not since the rollback."""
    home = Home.at(tmp_path)
    slots = Slots(home)
    a, b = installed(slots, home, "a"), installed(slots, home, "b")
    slots.name_candidate(b.sha256)
    slots.activate(a.sha256, "first")
    assert slots.pointer.candidate == ""
    slots.activate(b.sha256, "second")
    assert (slots.pointer.active_since, slots.pointer.previous_since) == ("second", "first")
    slots.roll_back(b.sha256, a.sha256, "third")
    assert slots.pointer == Pointer(active=a.sha256, active_since="first")
    slots.activate(b.sha256, "fourth")
    slots.roll_back(b.sha256, "", "fifth")
    assert slots.pointer == Pointer()


def test_the_first_commit_counts_and_what_is_so_is_not_written_again(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    slots = Slots(home)
    slot = installed(slots, home, "a")
    slots.commit(slot.sha256, "later")
    again = slots.find(slot.sha256)
    assert again is not None
    assert again.numbers["committed_at"] == NOW
    slots.note_deployment(slot.sha256, 7)
    slots.name_candidate(slot.sha256)
    written: list[Path] = []
    same = Slots(home, lambda target, _data: written.append(target))
    same.name_candidate(slot.sha256)
    same.note_deployment(slot.sha256, 7)
    same.note_deployment(slot.sha256, None)
    same.commit(slot.sha256, "later")
    assert written == []
