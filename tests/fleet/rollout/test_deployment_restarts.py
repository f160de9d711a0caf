"""A server that is restarted, or ends before it commits, in the middle of each step of a deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.rollout import deployments
from cellfleet.wire.rollout import DeploymentRequest, Phase
from support_fleet import TestClient, World
from support_rollout import Instrument, Publisher, deployment, instruments, member_states, person, tick


@pytest.fixture
def operator(as_role: Callable[[str], TestClient]) -> TestClient:
    return as_role("operator")


@pytest.fixture
def pilot(world: World) -> list[Instrument]:
    return instruments(world, "pilot", 3)


def actions(context: Context, subject: str) -> list[str]:
    with context.reading() as db:
        return [e.action for e in reversed(audit.listing(db, subject=subject))]


MODES = ("steady", "restarted", "crashed before each commit", "crashed after the first commit")


class Crash(Exception):
    """The server's process ends before it commits."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fate", ["good", "bad"])
def test_a_server_restarted_in_the_middle_of_each_step(
    mode: str,
    fate: str,
    context: Context,
    publisher: Publisher,
    operator: TestClient,
    pilot: list[Instrument],
    reopen: Callable[[], Context],
    later: Callable[[float], None],
) -> None:
    release = publisher.publish(operator, "1.0.0")
    request = DeploymentRequest(
        release_id=release, group="pilot", phases=(Phase(count=1, soak_s=30), Phase(percent=100, approval=True))
    )
    server = [context]

    def do(step: Callable[[Context], Any]) -> Any:
        if mode == MODES[0]:
            return step(context)
        if mode == MODES[2]:
            with _commits(server[0], 0), suppress(Crash):
                step(server[0])
        if mode == MODES[3]:
            with _commits(server[0], 1), suppress(Crash):
                return step(server[0])
        server[0].close()
        server[0] = reopen()
        return step(server[0])

    def in_session(work: Callable[[Session, Context], Any]) -> Callable[[Context], Any]:
        def step(c: Context) -> Any:
            with c.sessions() as db:
                return work(db, c)

        return step

    number = do(in_session(lambda db, c: deployments.create(db, c, person("operator"), request))).id
    do(tick)
    do(lambda c: pilot[0].moves(c, "downloading", "running"))
    do(lambda c: pilot[0].moves(c, "probation", "running"))
    if fate == "bad":
        do(lambda c: pilot[0].moves(c, "idle", "rolled-back", "too slow"))
    else:
        do(lambda c: pilot[0].moves(c, "idle", "succeeded"))
        do(tick)
        later(31)
        do(tick)
        do(in_session(lambda db, c: deployments.approve(db, c, person("approver"), number)))
        for one in pilot[1:]:
            do(lambda c, one=one: one.moves(c, "installing", "running"))  # type: ignore[misc]
        do(in_session(lambda db, c: deployments.halt(db, c, person("operator"), number, "lunch")))
        do(in_session(lambda db, c: deployments.resume(db, c, person("operator"), number)))
        for one in pilot[1:]:
            do(lambda c, one=one: one.moves(c, "idle", "succeeded"))  # type: ignore[misc]
    do(tick)
    final = server[0]
    story = _story(final, number, pilot)
    assert story == _EXPECTED[fate]
    with final.reading() as db:
        assert audit.verify(db).broken_at is None


@contextmanager
def _commits(server: Context, count: int) -> Iterator[None]:
    """So many sessions of this context are committed; the process ends before the next one is."""
    real, left = server.database.sessions, [count]

    @contextmanager
    def counted() -> Iterator[Session]:
        if left[0]:
            left[0] -= 1
            with real() as db:
                yield db
            return
        with server.database.writing() as db:
            yield db
            db.flush()
            db.rollback()
            raise Crash

    server.database.sessions = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        server.database.sessions = real  # type: ignore[method-assign]


def _story(context: Context, number: int, pilot: list[Instrument]) -> dict[str, Any]:
    row = deployment(context, number)
    wanted = [i.ask(context) for i in pilot]
    return {
        "state": row.state,
        "phase": row.phase,
        "members": member_states(context, number),
        "generations": [w.generation for w in wanted],
        "wanted": [w.release is not None for w in wanted],
        "audit": [a.removeprefix("deployment.") for a in actions(context, f"deployment:{number}")],
    }


_EXPECTED = {
    "bad": {
        "state": "halted",
        "phase": 0,
        "members": ["rolled-back", "waiting", "waiting"],
        "generations": [2, 0, 0],
        "wanted": [False, False, False],
        "audit": ["started", "offered", "halted"],
    },
    "good": {
        "state": "succeeded",
        "phase": 1,
        "members": ["succeeded"] * 3,
        "generations": [1, 3, 3],
        "wanted": [True] * 3,
        "audit": [
            "started",
            "offered",
            "phase",
            "awaits-approval",
            "approved",
            "offered",
            "halted",
            "withdrawn",
            "resumed",
            "offered",
            "succeeded",
        ],
    },
}
