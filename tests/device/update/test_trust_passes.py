"""A refusal that may pass is tried again, every other one stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellfleet.trust.refusals import BadSignature, ClockWrong, Downgrade, Expired, Missing, Untrusted
from cellfleet.wire.reason import english
from simulators.world import SimSource, World
from support_device import Releases


@pytest.mark.parametrize("kind", [Expired, ClockWrong, Missing])
def test_what_may_pass_is_tried_again(tmp_path: Path, releases: Releases, kind: type[Untrusted]) -> None:
    """As when a server that was off longer than its metadata lives is asked in its first second."""
    world = World(tmp_path, releases.files)
    assert isinstance(world.source, SimSource)
    world.source.check_errors = [kind("not now"), kind("not now")]
    world.desire(releases.old)
    world.run(lambda: world.active == releases.old.sha256)
    assert world.sink.moves().count(("checking", "failed", "idle")) == 2


@pytest.mark.parametrize("kind", [BadSignature, Downgrade])
def test_what_is_wrong_stays_refused(tmp_path: Path, releases: Releases, kind: type[Untrusted]) -> None:
    world = World(tmp_path, releases.files)
    assert isinstance(world.source, SimSource)
    world.source.check_errors = [kind("never")]
    world.desire(releases.old)
    world.run(lambda: world.idle() and world.update.outcome == "refused")
    for _ in range(200):
        world.tick()
    assert world.active == ""
    assert "never" in english(world.update.reason)
