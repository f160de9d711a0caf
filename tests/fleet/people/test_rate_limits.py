"""Limits of rate hold by minute, and over replicas."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from cellfleet.config.fleet import FleetSection
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.rate_limits import RateLimits
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.store.models import RateCount
from support_fleet import World


@pytest.fixture
def fleet_settings(database_url: str) -> FleetSection:
    return FleetSection(database=database_url, public_url="http://fleet.test", max_requests_per_min=7)


def passed(limits: RateLimits, key: str, per_min: int, tries: int) -> int:
    """How many of so many requests were let through; the others were told when to come back."""
    refusals: list[RequestRefused] = []
    for _ in range(tries):
        try:
            limits.take(key, per_min, what="requests")
        except RequestRefused as e:
            refusals.append(e)
    assert all(r.status == 429 and 1 <= int(r.headers["Retry-After"]) <= 60 for r in refusals)
    return tries - len(refusals)


def test_a_minute_and_the_next(context: Context, later: Callable[[float], None]) -> None:
    limits = context.service(RateLimits)
    assert passed(limits, "a", 100, 150) == 100
    assert passed(limits, "b", 3, 5) == 3
    later(60)
    assert passed(limits, "a", 100, 150) == 100


def test_over_replicas(context: Context, reopen: Callable[[], Context]) -> None:
    one, two = context.service(RateLimits), reopen().service(RateLimits)
    total = 0
    for _ in range(60):
        total += passed(one, "a", 50, 1) + passed(two, "a", 50, 1)
    assert total == 50


def test_threads_do_not_pass_more(context: Context, reopen: Callable[[], Context]) -> None:
    replicas, counts = [context.service(RateLimits), reopen().service(RateLimits)], []
    threads = [
        threading.Thread(target=lambda n=n: counts.append(passed(replicas[n % 2], "a", 40, 20))) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 40


def test_what_was_reserved_is_not_lost_to_a_thread_that_got_nothing(context: Context) -> None:
    limits = context.service(RateLimits)
    assert limits.use("a", 1) == 0
    assert limits.use("a", 1, granted=-1) == -1
    assert [limits.use("a", 1, granted=2), limits.use("a", 1), limits.use("a", 1)] == [2, 1, 0]


def test_a_long_key(context: Context) -> None:
    assert passed(context.service(RateLimits), "x" * 5000 + "\u0000", 2, 3) == 2


def test_old_minutes_are_forgotten(context: Context, later: Callable[[float], None]) -> None:
    limits = context.service(RateLimits)
    passed(limits, "a", 10, 1)
    later(3600)
    passed(limits, "a", 10, 1)
    limits.sweep()
    with context.reading() as db:
        assert db.query(RateCount).count() == 1


def test_people_and_devices_are_limited_apart(world: World) -> None:
    anna, ben, device = world.as_role("viewer", "anna"), world.as_role("viewer", "ben"), world.device("XYZ-001")
    assert device.http is not None
    statuses = [anna.get("/api/v1/me").status_code for _ in range(9)]
    assert statuses == [200] * 7 + [429] * 2
    assert ben.get("/api/v1/me").status_code == 200
    assert anna.get("/healthz").status_code == 200


@pytest.mark.parametrize(("path", "prefix"), [("/api/v1/me", "cft_"), ("/api/v1/device/desired", "cfd_")])
def test_who_guesses_tokens_is_slowed_down(world: World, path: str, prefix: str) -> None:
    statuses = [world.client.get(path, headers={"Authorization": f"Bearer {prefix}{i}"}).status_code for i in range(9)]
    assert statuses == [401] * 7 + [429] * 2
