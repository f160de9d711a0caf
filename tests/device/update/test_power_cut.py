"""The power is cut at every write of an update; after the next start the instrument ends in a good state."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cellfleet.device.slots import Slots
from cellfleet.device.update.journal import Journal
from simulators.disk import MOMENTS, Moment, PowerCut
from simulators.scheduler import Behaviour
from simulators.world import World
from support_device import Releases, world_with_old

CASES: dict[str, tuple[Behaviour, str]] = {
    "good": (Behaviour(), "succeeded"),
    "refused": (Behaviour(ap50=0.1), "refused"),
    "bad": (Behaviour(fails=True), "rolled-back"),
    "cold": (Behaviour(warm_problem="no memory"), "refused"),
}


def ended(world: World, outcome: str) -> Callable[[], bool]:
    def so() -> bool:
        done = world.idle() and world.update.outcome == outcome and world.update.deployment_id == 50
        return done and Slots(world.home).pointer.candidate == ""

    return so


def ready(folder: Path, releases: Releases, behaviour: Behaviour) -> World:
    world = world_with_old(folder, releases)
    world.work.behaviours[releases.new.sha256] = behaviour
    world.desire(releases.new, deployment_id=50)
    return world


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("case", CASES)
def test_power_cut_at_every_write(tmp_path: Path, releases: Releases, case: str, moment: Moment) -> None:
    behaviour, outcome = CASES[case]
    world = ready(tmp_path / "whole", releases, behaviour)
    before = len(world.disk.writes)
    world.run(ended(world, outcome))
    writes = len(world.disk.writes) - before
    assert writes > 14
    for number in range(1, writes + 1):
        folder = tmp_path / "cut"
        world = ready(folder, releases, behaviour)
        boots = world.boots
        world.disk.cut_at(number, moment)
        world.run(ended(world, outcome))
        expected = releases.new.sha256 if case == "good" else releases.old.sha256
        assert world.active == expected, f"write {number}"
        for _ in range(3):
            world.tick()
        assert world.boots == boots + 1, f"write {number}: the power was cut once"
        if case == "bad":
            assert all(p.slots[-1] == releases.old.sha256 for p in world.work.pins), "no curve mixes versions"
        shutil.rmtree(folder)


@pytest.mark.parametrize("state", ["checking", "downloading", "installing", "self-testing", "deferred", "activating",
                                   "probation", "committing", "rolling-back"])  # fmt: skip
def test_a_restart_in_every_state(tmp_path: Path, releases: Releases, state: str) -> None:
    """Not at a write, but when the action has been begun: the new process does it again."""
    behaviour, outcome = CASES["bad" if state == "rolling-back" else "good"]
    world = ready(tmp_path, releases, behaviour)
    now = world.clock.now()
    for _ in range(200):
        if Journal(world.home).entry.state == state:
            break
        world.clock.elapsed_s += 1
        world.server_sync.step()
        world.agent.snapshot = world.work.poll(now)
        world.agent.step(now)
    assert world.agent.state == state
    world.boot()
    world.run(ended(world, outcome))
    assert world.active == (releases.old if state == "rolling-back" else releases.new).sha256


def test_many_cuts_in_one_update(tmp_path: Path, releases: Releases) -> None:
    world = ready(tmp_path, releases, Behaviour())
    for number in (3, 5, 4, 7, 3, 6, 2, 9):
        world.disk.cut_at(number, "before")
        for _ in range(10):
            try:
                world.tick(30)
            except PowerCut:
                world.disk.cut_at(0, "before")
                world.boot()
                break
    world.disk.cut_at(0, "before")
    world.run(ended(world, "succeeded"), seconds=30)
    assert world.active == releases.new.sha256
