"""What happens with time, and which replica does it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from cellfleet.config.fleet import FleetSection
from cellfleet.errors import StorageError
from cellfleet.fleet import ticker, trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access
from cellfleet.fleet.rollout import reconcile
from cellfleet.fleet.store.models import DeviceToken, Lease, TrustFile, User, WebSession
from cellfleet.trust import TrustFolder
from support_fleet import TestClient, World
from support_rollout import Publisher, deployment, instruments, member_states, secrets, start
from support_waiting import PATIENCE_S, wait_until


@pytest.fixture
def fleet_settings(database_url: str) -> FleetSection:
    return FleetSection(database=database_url, public_url="http://fleet.test", tick_s=0.05)


def test_one_replica_at_a_time(context: Context, reopen: Callable[[], Context], later: Callable[[float], None]) -> None:
    other = reopen()
    assert ticker.hold(context)
    assert not ticker.hold(other)
    assert ticker.hold(context), "the holder renews it"
    later(16)
    assert ticker.hold(other), "its holder is gone"
    assert not ticker.hold(context)
    ticker.release(context)
    assert not ticker.hold(context), "only the holder gives it back"
    ticker.release(other)
    assert ticker.hold(context)


def test_many_replicas_want_it_at_once(context: Context, reopen: Callable[[], Context]) -> None:
    replicas, begin, got = [context, *(reopen() for _ in range(3))], threading.Barrier(4), []

    def want(replica: Context) -> None:
        begin.wait(30)
        got.append(ticker.hold(replica))

    threads = [threading.Thread(target=want, args=(r,)) for r in replicas]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert sorted(got) == [False, False, False, True]


def test_it_runs_until_it_is_told_to_stop(
    context: Context,
    publisher: Publisher,
    as_role: Callable[[str], TestClient],
    world: World,
    later: Callable[[float], None],
) -> None:
    pilot = instruments(world, "pilot", 2)
    operator = as_role("operator")
    phases = [{"count": 1, "soak_s": 60}, {"percent": 100}]
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", phases)
    pilot[0].succeeds(context)
    stop = threading.Event()
    thread = threading.Thread(target=ticker.run, args=(context, stop))
    thread.start()
    try:
        assert member_states(context, number) == ["succeeded", "waiting"]
        later(61)
        wait_until(lambda: member_states(context, number) == ["succeeded", "offered"], "the next phase")
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    with context.reading() as db:
        assert db.query(Lease).count() == 0, "given back"


@pytest.mark.parametrize("trouble", [StorageError("of the disk"), TypeError("of our own")])
def test_one_trouble_does_not_stop_the_others(
    trouble: Exception,
    context: Context,
    publisher: Publisher,
    as_role: Callable[[str], TestClient],
    world: World,
    later: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    operator, release = as_role("operator"), publisher.publish(as_role("operator"), "1.0.0")
    numbers = []
    for name in ("a", "b"):
        world.device(f"{name}-1", group=name)
        numbers.append(start(operator, release, name, [{"percent": 100, "silent_after_s": 60}]))
    really = reconcile.reconcile

    def troubled(c: Context, number: int) -> None:
        if number == numbers[0]:
            raise trouble
        really(c, number)

    monkeypatch.setattr(reconcile, "reconcile", troubled)
    later(61)
    with caplog.at_level(logging.ERROR):
        ticker.tick(context)
    assert [deployment(context, n).state for n in numbers] == ["running", "halted"]
    assert str(trouble) in caplog.text


def test_new_keys_of_the_trust_folder_are_taken(context: Context, publisher: Publisher) -> None:
    from cellfleet.trust.rotation import rotate

    rotate(TrustFolder.load(publisher.folder), "models", secrets, context.clock.now())
    assert trust_repository.take_folder(context)
    assert not trust_repository.take_folder(context), "once"
    with context.reading() as db:
        assert db.get(TrustFile, "image/2.snapshot.json") is not None
    body = publisher.request("1.0.0")
    assert body["metadata"]


def test_what_has_had_its_time_is_swept(context: Context, world: World, later: Callable[[float], None]) -> None:
    world.device("XYZ-001")
    with context.sessions() as db:
        user = User(name="anna", password_hash="", role="viewer", disabled=False, created_at=context.clock.now())
        db.add(user)
        db.flush()
        access.open_session(db, context, user)
    later(context.settings.device_token_s)
    ticker.sweep(context)
    with context.reading() as db:
        assert (db.query(DeviceToken).count(), db.query(WebSession).count()) == (1, 1), "they end now, not before"
    later(1)
    ticker.sweep(context)
    with context.reading() as db:
        assert (db.query(DeviceToken).count(), db.query(WebSession).count()) == (0, 1)
    later(context.settings.session_s)
    ticker.sweep(context)
    with context.reading() as db:
        assert db.query(WebSession).count() == 0
