"""The agent's life from the desired state to the end of an update, in a simulated world."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cellfleet.device.camera.inhibit_lease import Lease, drop_lease, write_lease
from cellfleet.device.slots import Slots
from cellfleet.device.update.install_requests import InstallRequest, next_request, put_request, request_name
from cellfleet.errors import BundleError, NetworkError, StorageError, TrustError
from cellfleet.wire.reason import english
from cellfleet.wire.states import MaintenanceWindow
from simulators.scheduler import Behaviour
from simulators.world import SimSource, World
from support_device import Releases, world_with_old


def source_of(world: World) -> SimSource:
    assert isinstance(world.source, SimSource)
    return world.source


def test_a_release_is_installed_tested_activated_and_kept(tmp_path: Path, releases: Releases) -> None:
    world = World(tmp_path, releases.files)
    world.desire(releases.old)
    world.run(world.idle)
    assert world.sink.moves() == [
        ("idle", "update-wanted", "checking"),
        ("checking", "trusted", "downloading"),
        ("downloading", "downloaded", "installing"),
        ("installing", "installed", "self-testing"),
        ("self-testing", "passed", "deferred"),
        ("deferred", "may-activate", "activating"),
        ("activating", "activated", "probation"),
        ("probation", "good", "committing"),
        ("committing", "committed", "idle"),
    ]
    assert world.update.outcome == "succeeded"
    assert world.active == releases.old.sha256


def test_the_server_is_told_how_it_went(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new, deployment_id=77)
    world.run(world.idle)
    world.run(lambda: world.has_reported())
    last = world.server.reports[-1]
    assert last.update is not None
    assert last.active is not None
    assert last.previous is not None
    assert (last.active.version, last.previous.version, last.candidate) == ("1.1.0", "1.0.0", None)
    assert (last.update.deployment_id, last.update.outcome, last.state) == (77, "succeeded", "idle")
    assert last.update.bytes_downloaded == releases.new.length
    assert last.update.update_s is not None
    assert last.update.numbers["selftest"]["onnxruntime/fp32"]["ap50"] == 0.9
    assert last.update.numbers["probation"]["frames"] >= 4
    assert last.generation == world.generation
    sequences = [r.sequence for r in world.server.reports]
    assert sequences == sorted(set(sequences))


def test_sequences_go_on_after_a_restart(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    before = world.server.reports[-1]
    world.boot()
    world.run(lambda: world.server.reports[-1].boot_id != before.boot_id)
    assert world.server.reports[-1].sequence > before.sequence


def test_the_active_bundle_s_golden_frames_are_drawn_too(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new)
    world.run(world.idle)
    slots = Slots(world.home)
    new, old = slots.find(releases.new.sha256), slots.find(releases.old.sha256)
    assert new is not None
    assert old is not None
    assert world.work.tested[-1][2] == (str(new.bundle), str(old.bundle))


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour(ap50=0.1), "AP@0.5 is 0.100 on its golden frames"),
        (Behaviour(other_ap50=0.2), "golden frames of the active bundle"),
        (Behaviour(milliseconds=99_999), "99999 ms"),
        (Behaviour(memory_mb=9000), "9000 MB"),
        (Behaviour(selftest_problem="its segmenter crashed"), "crashed"),
        (Behaviour(selftest_problem="its segmenter hung"), "hung"),
        (Behaviour(ap50=float("nan")), "AP@0.5 is nan on its golden frames"),
        (Behaviour(selftest_problem="a log with\0 and \ud800 in it"), "a log with  and ? in it"),
    ],
)
def test_a_candidate_that_fails_its_self_test_is_refused_and_removed(
    tmp_path: Path, releases: Releases, behaviour: Behaviour, words: str
) -> None:
    world = world_with_old(tmp_path, releases)
    world.work.behaviours[releases.new.sha256] = behaviour
    world.desire(releases.new)
    world.run(world.idle)
    assert world.update.outcome == "refused"
    assert words in english(world.update.reason)
    assert world.active == releases.old.sha256
    world.tick()
    assert Slots(world.home).find(releases.new.sha256) is None
    tested = len(world.work.tested)
    for _ in range(20):
        world.tick(60)
    assert len(world.work.tested) == tested, "what was refused is not tried again"


@pytest.mark.parametrize(
    ("behaviour", "code", "values"),
    [
        (Behaviour(live_milliseconds=900), "probation.slower", {"ms": 900, "before_ms": 100}),
        (Behaviour(live_memory_mb=9000), "probation.memory", {"memory_mb": 9000}),
        (Behaviour(fails=True), "probation.errors-last", {"failed": 2, "limit": 1}),
        (Behaviour(crashes=True), "probation.errors-last", {"crashes": 2}),
    ],
)
def test_what_gets_bad_on_live_frames_is_rolled_back(
    tmp_path: Path, releases: Releases, behaviour: Behaviour, code: str, values: dict[str, float]
) -> None:
    world = world_with_old(tmp_path, releases)
    world.work.behaviours[releases.new.sha256] = behaviour
    world.desire(releases.new)
    world.run(world.idle)
    assert world.update.outcome == "rolled-back"
    reason = world.update.reason
    assert reason is not None
    assert reason.code == code
    assert {**reason.values, **values} == reason.values
    assert world.active == releases.old.sha256
    assert world.work.repins[-1] == (releases.new.sha256, releases.old.sha256)
    world.run(lambda: world.update.recovery_s is not None)
    recovery_s = world.update.recovery_s
    assert recovery_s is not None
    assert recovery_s > 0
    assert all(p.slots[-1] == releases.old.sha256 for p in world.work.pins)
    assert Slots(world.home).find(releases.new.sha256) is None
    world.run(lambda: world.has_reported())
    assert world.server.reports[-1].update is not None
    assert world.server.reports[-1].update.outcome == "rolled-back"


def test_times_of_a_bad_slot_are_no_measure_for_the_next(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.work.behaviours[releases.new.sha256] = Behaviour(live_milliseconds=900)
    for _ in range(2):
        world.desire(releases.new)
        world.run(lambda: world.idle() and world.update.deployment_id == world.generation)
        assert world.update.outcome == "rolled-back"
        assert world.update.tally.base_ms == 100.0
        world.run(lambda: world.update.recovery_s is not None)


def test_a_rollback_needs_no_network(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.work.behaviours[releases.new.sha256] = Behaviour(fails=True)
    world.desire(releases.new)
    world.run(lambda: world.agent.state == "probation")
    world.server.away = True
    world.run(world.idle)
    assert world.update.outcome == "rolled-back"
    assert world.active == releases.old.sha256


def test_a_first_release_that_is_bad_leaves_nothing_active(tmp_path: Path, releases: Releases) -> None:
    world = World(tmp_path, releases.files)
    world.work.behaviours[releases.old.sha256] = Behaviour(fails=True)
    world.desire(releases.old)
    world.run(world.idle)
    assert (world.update.outcome, world.active) == ("rolled-back", "")


def test_without_frames_it_is_kept_after_some_time(tmp_path: Path, releases: Releases) -> None:
    world = World(tmp_path, releases.files)
    world.work.takes_frames = False
    world.desire(releases.old)
    world.run(lambda: world.agent.state == "probation")
    world.tick(60)
    assert world.agent.state == "probation"
    world.run(world.idle, seconds=600)
    assert world.update.outcome == "succeeded"
    assert "none of them bad" in english(world.update.reason)


def test_settings_of_the_deployment_hold_for_the_update(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new, min_golden_ap50=0.95)
    world.run(world.idle)
    assert world.update.outcome == "refused"
    world.desire(releases.new, no_such_setting=1)
    world.run(lambda: world.update.deployment_id == world.generation and world.idle())
    assert "no_such_setting" in english(world.update.reason)


def test_an_untrusted_release_is_refused_and_not_tried_again(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    source_of(world).check_errors = [TrustError("only the director names it", hint="ask")]
    world.desire(releases.new)
    world.run(world.idle)
    assert (world.update.outcome, english(world.update.reason)) == (
        "refused",
        "not trusted: only the director names it; ask",
    )
    fetched = source_of(world).fetched
    for _ in range(10):
        world.tick(600)
    assert source_of(world).fetched == fetched


def test_a_server_that_cannot_be_asked_is_waited_for_without_end(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    source_of(world).check_errors = [NetworkError("away")] * 30
    world.desire(releases.new)
    starts: list[float] = []

    def noted() -> bool:
        if len(starts) < 30 - len(source_of(world).check_errors):
            starts.append(world.clock.elapsed_s)
        return world.idle()

    world.run(noted, ticks=3000, seconds=10)
    waits = [b - a for a, b in zip(starts, starts[1:], strict=False)]
    assert len(starts) == 30
    assert waits[1] < waits[3] < waits[6]
    assert max(waits) <= 5 * 100 * 1.2 + 20
    assert world.update.outcome == "succeeded"


def test_when_the_server_is_back_the_update_does_not_wait_on(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    source_of(world).check_errors = [NetworkError("away")] * 9
    world.desire(releases.new)
    world.run(lambda: not source_of(world).check_errors, ticks=2000)
    assert world.update.not_before is not None
    assert (world.update.not_before - world.clock.now()).total_seconds() > 400
    world.server.away = True
    world.run(lambda: world.server_sync.problem != "")
    world.server.away = False
    world.run(world.idle, ticks=60)
    assert world.update.outcome == "succeeded"


def test_downloads_that_fail_are_counted_and_reported(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    source_of(world).fetch_errors = [StorageError("the disk is full", hint="free some space")] * 8
    world.desire(releases.new)
    world.run(lambda: world.update.attempts == 1)
    assert "the disk is full" in english(world.update.reason)
    assert world.update.outcome == "running"
    world.run(world.idle, seconds=100)
    assert (world.update.outcome, world.update.attempts) == ("failed", 8)
    assert world.active == releases.old.sha256


def test_a_download_that_breaks_twice_succeeds(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    source_of(world).fetch_errors = [NetworkError("broke"), NetworkError("broke")]
    world.desire(releases.new)
    world.run(world.idle, seconds=10)
    assert world.update.outcome == "succeeded"


def test_a_bundle_that_is_none_is_refused(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    source_of(world).fetch_errors = [BundleError("no bundle")]
    world.desire(releases.new)
    world.run(world.idle)
    assert (world.update.outcome, english(world.update.reason)) == ("refused", "the bundle is refused: no bundle")


def test_a_defect_in_an_action_is_no_end_of_the_agent(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    source_of(world).fetch_errors = [ZeroDivisionError("hostile")] * 8  # type: ignore[list-item]
    world.desire(releases.new)
    world.run(world.idle, seconds=100)
    assert world.update.outcome == "failed"
    assert "ZeroDivisionError: hostile" in english(world.update.reason)


def test_an_acquisition_holds_an_activation_back(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    lease = Lease(holder="camera", reason="a night's run", expires_at=world.clock.at + timedelta(hours=1))
    write_lease(world.home.inhibit, "camera", lease)
    world.desire(releases.new)
    world.run(lambda: world.update.outcome == "deferred")
    for _ in range(50):
        world.tick()
    assert world.agent.state == "deferred"
    assert world.active == releases.old.sha256
    assert "a night's run" in english(world.agent.reason)
    drop_lease(world.home.inhibit, "camera")
    world.run(world.idle)
    assert world.update.outcome == "succeeded"


def test_a_lease_that_expired_holds_nothing_back(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    lease = Lease(holder="camera", reason="crashed since", expires_at=world.clock.at + timedelta(seconds=60))
    write_lease(world.home.inhibit, "camera", lease)
    (world.home.inhibit / "odd.json").write_text("{")
    world.desire(releases.new)
    world.run(world.idle, seconds=5)
    assert world.update.outcome == "succeeded"


def test_a_maintenance_window_is_waited_for(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new, window=MaintenanceWindow(start="14:00", end="15:00"))
    world.run(lambda: world.agent.state == "deferred")
    world.run(lambda: world.active == releases.new.sha256, seconds=300)
    assert world.clock.at.hour == 14


@pytest.mark.parametrize("state", ["checking", "downloading", "installing", "self-testing", "deferred"])
def test_a_withdrawn_update_is_left_in_every_state_before_activation(
    tmp_path: Path, releases: Releases, state: str
) -> None:
    world = world_with_old(tmp_path, releases)
    lease = Lease(holder="test", reason="test", expires_at=world.clock.at + timedelta(days=1))
    write_lease(world.home.inhibit, "test", lease)
    world.desire(releases.new)
    world.server_sync.step()
    seen = []

    def step() -> bool:
        seen.append(world.agent.state)
        return world.agent.state == state

    now = world.clock.now()
    while not step():
        assert len(seen) < 200
        world.clock.elapsed_s += 1
        world.server_sync.step()
        world.agent.step(now)
    world.desire(None)
    world.run(
        lambda: world.server_sync.desired is not None and world.server_sync.desired.generation == world.generation
    )
    world.run(lambda: world.agent.state == "idle")
    assert world.sink.moves()[-1] == (state, "withdrawn", "idle")
    world.tick()
    assert Slots(world.home).pointer.candidate == ""
    assert Slots(world.home).find(releases.new.sha256) is None
    drop_lease(world.home.inhibit, "test")
    world.desire(releases.new)
    world.run(world.idle)
    assert world.active == releases.new.sha256, "the same release can be asked for again"


def test_no_withdrawal_after_the_activation(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new)
    world.run(lambda: world.agent.state == "probation")
    world.desire(releases.old)
    world.run(lambda: world.active == releases.new.sha256 and world.idle())
    assert ("probation", "good", "committing") in world.sink.moves()


def test_a_candidate_whose_segmenter_does_not_start_is_refused(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.work.behaviours[releases.new.sha256] = Behaviour(warm_problem="no memory")
    world.desire(releases.new)
    world.run(world.idle)
    assert (world.update.outcome, english(world.update.reason)) == ("refused", "no memory")
    assert world.active == releases.old.sha256
    assert releases.new.sha256 not in world.work.activations


def test_the_same_after_the_pointer_was_written_rolls_back(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new)
    world.run(lambda: world.agent.state == "probation")
    entry = world.agent.journal.entry
    world.agent.journal.write(entry.model_copy(update={"state": "activating"}))
    world.work.behaviours[releases.new.sha256] = Behaviour(warm_problem="no memory")
    world.boot()
    world.run(world.idle)
    assert ("activating", "bad", "rolling-back") in world.sink.moves()
    assert (world.update.outcome, world.active) == ("rolled-back", releases.old.sha256)


def test_a_deployment_of_what_is_active_is_answered(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    moves = len(world.sink.moves())
    world.desire(releases.old, deployment_id=900)
    world.run(lambda: world.update.deployment_id == 900 and world.has_reported())
    assert world.update.outcome == "succeeded"
    assert len(world.sink.moves()) == moves


def test_a_rollback_is_told_before_the_next_desired_state_is_looked_at(tmp_path: Path, releases: Releases) -> None:
    """A server that halts a deployment goes back to the one before, at once."""
    world = world_with_old(tmp_path, releases)
    before = world.update.deployment_id
    world.work.behaviours[releases.new.sha256] = Behaviour(fails=True)
    world.desire(releases.new, deployment_id=70)
    world.run(lambda: world.agent.state == "rolling-back" or world.update.outcome == "rolled-back")
    world.desire(releases.old, deployment_id=71)
    world.run(lambda: world.update.deployment_id == 71)
    ends = [r.update for r in world.server.reports if r.update is not None and r.update.deployment_id == 70]
    assert ends[-1].outcome == "rolled-back"
    assert ends[-1].recovery_s is not None
    world.desire(releases.old, deployment_id=before)
    for _ in range(20):
        world.tick()
    assert world.update.deployment_id == before
    world.desire(releases.old, deployment_id=before)
    for _ in range(20):
        world.tick()
    assert world.update.outcome == "succeeded"


def test_the_deployment_before_is_not_answered_twice(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    before = world.update.deployment_id
    world.work.behaviours[releases.new.sha256] = Behaviour(ap50=0.1)
    world.desire(releases.new, deployment_id=70)
    world.run(world.idle)
    world.desire(releases.old, deployment_id=before)
    for _ in range(20):
        world.tick()
    assert (world.update.deployment_id, world.update.outcome) == (70, "refused"), "what was refused stays to be seen"


def test_a_person_s_request_is_taken_before_the_desired_state(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    name = request_name(world.clock.now())
    request = InstallRequest(name=name, folder="/a/folder", release=releases.new, asked_at=world.clock.now())
    put_request(world.home, request)
    (world.home.requests / "install-x.json").write_text("{")
    world.run(lambda: world.update.request == name and world.idle())
    assert world.active == releases.new.sha256
    assert next_request(world.home) is None
    assert list(world.home.requests.iterdir()) == []


def test_a_damaged_active_slot_is_left_and_comes_again(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new)
    world.run(world.idle)
    slot = Slots(world.home).find(releases.new.sha256)
    assert slot is not None
    damaged = bytearray(slot.bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    slot.bundle.unlink()
    slot.bundle.write_bytes(bytes(damaged))
    world.boot()
    assert world.active == releases.old.sha256
    assert "slot-damaged" in world.sink.incidents()
    world.run(lambda: world.active == releases.new.sha256 and world.idle())
    assert world.update.outcome == "succeeded"


def test_a_damaged_slot_without_another_leaves_nothing_active(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    slot = Slots(world.home).find(releases.old.sha256)
    assert slot is not None
    (slot.folder / "slot.json").write_bytes(b"\0" * 20)
    world.server.away = True
    world.boot()
    assert world.active == ""
    world.server.away = False
    world.run(lambda: world.active == releases.old.sha256 and world.idle())


def test_a_damaged_journal_page_is_passed_over(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    world.desire(releases.new)
    world.run(lambda: world.agent.state == "probation")
    number = world.agent.journal.entry.number
    (world.home.state / f"journal-{number}.json").write_bytes(b"\x00\x01")
    world.boot()
    assert "state-damaged" in world.sink.incidents()
    world.run(world.idle)
    assert world.active == releases.new.sha256


def test_a_journal_that_is_gone_is_begun_anew(tmp_path: Path, releases: Releases) -> None:
    world = world_with_old(tmp_path, releases)
    for path in world.home.state.glob("journal-*.json"):
        path.write_bytes(b"{}")
    world.boot()
    world.run(world.idle)
    assert world.active == releases.old.sha256


def test_the_disk_refuses_for_a_while(tmp_path: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_with_old(tmp_path, releases)
    good = world.disk.write
    world.desire(releases.new)
    world.server_sync.step()

    def full(target: Path, data: bytes) -> None:
        del data
        raise StorageError(f"cannot write {target}: no space left")

    monkeypatch.setattr(world.disk, "write", full)
    world.boot()
    for _ in range(5):
        world.tick()
    assert "no space left" in " ".join(map(english, (*world.agent.problems, world.server_sync.problem_reason)))
    monkeypatch.setattr(world.disk, "write", good)
    world.boot()
    world.run(lambda: world.active == releases.new.sha256 and world.idle())
