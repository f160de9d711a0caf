"""Whatever the server wants, however models behave, whenever the power is cut: the pointer names tested, whole slots."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cellfleet.device.camera.inhibit_lease import Lease, drop_lease, write_lease
from cellfleet.errors import CellfleetError, NetworkError, StorageError, TrustError
from simulators.disk import MOMENTS, Moment, PowerCut
from simulators.scheduler import Behaviour
from simulators.world import SimSource, World
from support_device import Releases, make_releases

_RELEASES: list[Releases] = []
_FOLDER = tempfile.TemporaryDirectory(prefix="cellfleet-releases-")
BEHAVIOURS = (
    Behaviour(),
    Behaviour(ap50=0.1),
    Behaviour(live_milliseconds=2000),
    Behaviour(fails=True),
    Behaviour(crashes=True),
    Behaviour(warm_problem="no memory"),
)


def releases() -> Releases:
    if not _RELEASES:
        _RELEASES.append(make_releases(Path(_FOLDER.name)))
    return _RELEASES[0]


class Life(RuleBasedStateMachine):
    """One instrument."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cellfleet-life-"))
        self.world = World(self.folder, releases().files)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    @rule(new=st.booleans(), behaviour=st.sampled_from(BEHAVIOURS))
    def desire(self, new: bool, behaviour: Behaviour) -> None:
        release = releases().new if new else releases().old
        if release.sha256 != self.world.active:
            self.world.work.behaviours[release.sha256] = behaviour
        installed = self.world.agent.context.slots.counters()
        if release.counter >= installed.get((release.kind, release.name), 0):
            self.world.desire(release)

    @rule()
    def withdraw(self) -> None:
        self.world.desire(None)

    @rule(ticks=st.integers(1, 12), seconds=st.sampled_from((1.0, 30.0, 4000.0)))
    def live(self, ticks: int, seconds: float) -> None:
        for _ in range(ticks):
            self.tick(seconds)

    @rule(number=st.integers(1, 12), moment=st.sampled_from(MOMENTS))
    def power_cut_soon(self, number: int, moment: Moment) -> None:
        self.world.disk.cut_at(number, moment)

    @rule()
    def restart(self) -> None:
        self.guarded(self.world.boot)

    @rule(away=st.booleans(), broken=st.sampled_from((0, 500, 403)))
    def server(self, away: bool, broken: int) -> None:
        self.world.server.away, self.world.server.broken = away, broken

    @rule(kind=st.sampled_from((NetworkError, StorageError, TrustError)), check=st.booleans())
    def trouble(self, kind: type[CellfleetError], check: bool) -> None:
        source = self.world.source
        assert isinstance(source, SimSource)
        (source.check_errors if check else source.fetch_errors).append(kind("of the source"))

    @rule(minutes=st.integers(1, 90))
    def hold(self, minutes: int) -> None:
        lease = Lease(holder="camera", reason="a run", expires_at=self.world.clock.at + timedelta(minutes=minutes))
        write_lease(self.world.home.inhibit, "camera", lease)

    @rule()
    def release_hold(self) -> None:
        drop_lease(self.world.home.inhibit, "camera")

    @rule()
    def all_well_in_the_end(self) -> None:
        """With the world in order, what is wanted comes to an end."""
        world = self.world
        world.server.away, world.server.broken = False, 0
        drop_lease(world.home.inhibit, "camera")
        world.disk.cut_at(0, "before")
        for _ in range(400):
            self.tick(60.0)
            entry = world.agent.journal.entry
            if entry.state == "idle" and (entry.update is None or entry.update.settled):
                return
        raise AssertionError(f"no end: {world.agent.journal.entry}")

    @invariant()
    def whole(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def tick(self, seconds: float) -> None:
        self.guarded(lambda: self.world.tick(seconds))

    def guarded(self, act: Any) -> None:
        try:
            act()
        except PowerCut:
            self.world.disk.cut_at(0, "before")
            self.world.boot()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
