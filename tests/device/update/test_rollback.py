"""Rollback and repair: experiments, pointer and slots in the order that a power cut cannot break."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cellfleet.device.slots import Slots
from cellfleet.device.update.rollback import repair, roll_back
from cellfleet.errors import StorageError
from simulators.scheduler import Behaviour
from simulators.world import World
from support_device import Releases, world_with_old


def damage(world: World, sha256: str) -> None:
    slot = Slots(world.home).find(sha256)
    assert slot is not None
    data = bytearray(slot.bundle.read_bytes())
    data[len(data) // 2] ^= 1
    slot.bundle.unlink()  # it may be a hard link
    slot.bundle.write_bytes(bytes(data))


def with_new(folder: Path, releases: Releases) -> World:
    """Old is previous, new is active and committed, and an experiment is pinned to it."""
    world = world_with_old(folder, releases)
    world.desire(releases.new)
    world.run(world.idle)
    world.run(lambda: releases.new.sha256 in world.work.pinned())
    return world


def test_an_experiment_leaves_a_damaged_active_slot(tmp_path: Path, releases: Releases) -> None:
    world = with_new(tmp_path, releases)
    damage(world, releases.new.sha256)
    world.server.away = True
    world.boot()
    assert world.active == releases.old.sha256
    assert world.work.pinned() == {releases.old.sha256}
    assert set(world.work.repins) == {(releases.new.sha256, releases.old.sha256)}


def test_experiments_are_repinned_before_the_pointer_changes(
    tmp_path: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between the two: the next start finds the damage again and repeats both."""
    world = with_new(tmp_path, releases)
    damage(world, releases.new.sha256)

    def full(target: Path, data: bytes) -> None:
        raise StorageError(f"{target}: {len(data)} bytes too many")

    slots = Slots(world.home, full)
    monkeypatch.setattr(world.disk, "write", full)
    with pytest.raises(StorageError):
        repair(slots, world.work, world.agent.journal, world.clock.now())
    monkeypatch.undo()
    with pytest.raises(StorageError):
        repair(slots, world.work, world.agent.journal, world.clock.now())
    assert Slots(world.home).pointer.active == releases.new.sha256
    assert world.work.pinned() == {releases.old.sha256}
    found = repair(Slots(world.home), world.work, world.agent.journal, world.clock.now())
    assert found is not None
    assert found.code == "slot.damaged"
    assert Slots(world.home).pointer.active == releases.old.sha256


def test_an_intact_slot_is_left_alone(tmp_path: Path, releases: Releases) -> None:
    world = with_new(tmp_path, releases)
    page = world.agent.journal.entry
    assert repair(Slots(world.home), world.work, world.agent.journal, world.clock.now()) is None
    assert (world.active, world.agent.journal.entry, world.work.repins) == (releases.new.sha256, page, [])


def test_an_update_that_failed_is_reopened_with_all_its_attempts(tmp_path: Path, releases: Releases) -> None:
    world = with_new(tmp_path, releases)
    entry = world.agent.journal.entry
    assert entry.update is not None
    world.agent.journal.write(entry.model_copy(update={"update": entry.update.model_copy(update={"attempts": 7})}))
    damage(world, releases.new.sha256)
    repair(Slots(world.home), world.work, world.agent.journal, world.clock.now())
    again = world.update
    assert (again.settled, again.attempts, again.outcome) == (False, 0, "running")


def test_the_damage_of_one_slot_reopens_no_update_of_another(tmp_path: Path, releases: Releases) -> None:
    """The refused release stays refused: only the damaged one is installed again."""
    world = world_with_old(tmp_path, releases)
    world.work.behaviours[releases.new.sha256] = Behaviour(ap50=0.1)
    world.desire(releases.new)
    world.run(world.idle)
    damage(world, releases.old.sha256)
    repair(Slots(world.home), world.work, world.agent.journal, world.clock.now())
    assert (world.update.outcome, world.update.settled) == ("refused", True)


def test_a_running_update_is_not_reopened(tmp_path: Path, releases: Releases) -> None:
    """Its page holds a state, to which the reopened one would not belong."""
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new)
    world.run(lambda: world.agent.state == "probation")
    page = world.agent.journal.entry
    damage(world, releases.new.sha256)
    repair(Slots(world.home), world.work, world.agent.journal, world.clock.now())
    assert world.agent.journal.entry == page


def test_a_rollback_repins_from_the_activation_and_keeps_a_slot_that_is_pinned(
    tmp_path: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new)
    world.run(lambda: world.agent.state == "probation")
    update, slots, calls = world.update, world.agent.context.slots, []
    monkeypatch.setattr(world.work, "repin", lambda bad, good, since, why: calls.append((bad, good, since, why)))
    monkeypatch.setattr(world.work, "stop_unneeded", lambda slot: calls.append(slot.sha256))
    monkeypatch.setattr(world.work, "pinned", lambda: frozenset({releases.new.sha256}))
    bad = slots.find(releases.new.sha256)
    later = world.clock.now() + timedelta(hours=1)
    good = roll_back(slots, world.work, update.model_copy(update={"reason": "slow"}), later)
    assert good == slots.find(releases.old.sha256)
    assert calls == [(bad, good, update.activated_at, "slow"), releases.new.sha256]
    assert slots.find(releases.new.sha256) is not None, "an experiment still uses it"
    monkeypatch.setattr(world.work, "pinned", lambda: frozenset())
    assert roll_back(slots, world.work, update, later) == good, "the same again"
    assert slots.find(releases.new.sha256) is None
