"""Deployments through the API and the services, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import select

from cellfleet.config.fleet import FleetSection
from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.provisioning import devices
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.rollout import deployments
from cellfleet.fleet.rollout.reconcile import reconcile
from cellfleet.fleet.store.models import AuditEvent, DeploymentMember, Device, Release, TrustFile
from cellfleet.wire.reason import Reason, because, english
from cellfleet.wire.rollout import DeploymentRequest, Phase
from support_fleet import TestClient, World, wait_until_blocked
from support_rollout import (
    Instrument,
    Publisher,
    deployment,
    instruments,
    member_states,
    person,
    start,
    tick,
)

TWO = [{"count": 1}, {"percent": 100}]


@pytest.fixture
def operator(as_role: Callable[[str], TestClient]) -> TestClient:
    return as_role("operator")


@pytest.fixture
def pilot(world: World) -> list[Instrument]:
    return instruments(world, "pilot", 3)


def actions(context: Context, subject: str) -> list[str]:
    with context.reading() as db:
        return [e.action for e in reversed(audit.listing(db, subject=subject))]


def test_a_release_reaches_every_instrument_in_phases(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument]
) -> None:
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", TWO)
    assert member_states(context, number) == ["offered", "waiting", "waiting"]
    assert [i.ask(context).release is not None for i in pilot] == [True, False, False]
    pilot[0].succeeds(context)
    assert member_states(context, number) == ["succeeded", "offered", "offered"], "a success is acted upon at once"
    pilot[1].succeeds(context)
    pilot[2].succeeds(context)
    answer = operator.get(f"/api/v1/deployments/{number}").json()
    assert (answer["state"], answer["counts"], answer["waits_for"]) == ("succeeded", {"succeeded": 3}, "")
    assert actions(context, f"deployment:{number}") == [
        "deployment.started", "deployment.offered", "deployment.phase", "deployment.offered", "deployment.succeeded",
    ]  # fmt: skip
    members = operator.get(f"/api/v1/deployments/{number}/members?limit=2").json()
    assert [m["name"] for m in members["items"]] == ["XYZ-001", "XYZ-002"]
    assert members["items"][0]["update"]["outcome"] == "succeeded"
    rest = operator.get(f"/api/v1/deployments/{number}/members?limit=2&after={members['next']}").json()
    assert [m["name"] for m in rest["items"]] == ["XYZ-003"]


def test_a_refusal_halts_at_once_and_the_others_never_see_it(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument]
) -> None:
    first = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 100}])
    for i in pilot:
        i.succeeds(context)
    before = [i.ask(context) for i in pilot]
    number = start(operator, publisher.publish(operator, "1.1.0"), "pilot", TWO)
    pilot[0].moves(context, "idle", "refused", "golden frame g1: AP@0.5 is 0.03")
    row = deployment(context, number)
    assert row.state == "halted"
    assert row.halted_reason == (
        "XYZ-001 refused the release: golden frame g1: AP@0.5 is 0.03. Failures in phase 1: 1; the limit is 0"
    )
    answer = operator.get(f"/api/v1/deployments/{number}").json()
    assert (answer["halted_reason"], answer["halted_data"]["code"]) == (row.halted_reason, "rollout.halt-count")
    (member,) = [m for m in operator.get(f"/api/v1/deployments/{number}/members").json()["items"] if m["reason"]]
    assert member["reason_data"] == {"code": "text", "values": {"text": member["reason"]}, "parts": []}
    after = [i.ask(context) for i in pilot]
    assert after[1:] == before[1:], "not even a new generation"
    assert (after[0].deployment_id, after[0].release) == (first, before[0].release), "it keeps what it runs"
    assert after[0].generation == before[0].generation + 2
    tick(context)
    assert member_states(context, number) == ["refused", "waiting", "waiting"]


@pytest.mark.parametrize("code", ["probation.memory", "of-a-newer.agent"])
def test_reasons_of_agents_are_stored_as_data_where_their_codes_are_known(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument], code: str
) -> None:
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", TWO)
    memory = because("probation.memory", memory_mb=1446, limit_mb=800)
    text = english(memory)
    pilot[0].moves(context, "idle", "rolled-back", text, Reason(code=code, values=memory.values))
    (member,) = [m for m in operator.get(f"/api/v1/deployments/{number}/members").json()["items"] if m["reason"]]
    expected = memory if code == memory.code else because("text", text=text)
    assert (member["reason"], member["reason_data"]) == (text, expected.to_data())
    halted = operator.get(f"/api/v1/deployments/{number}").json()
    assert halted["halted_reason"].startswith(f"XYZ-001 rolled the release back: {text}. Failures in phase 1: 1")
    assert halted["halted_data"]["parts"][0]["parts"] == [expected.to_data()]
    with context.sessions() as db:
        (event,) = audit.listing(db, action="deployment.halted")
        assert (event.reason, event.detail["reason_data"]) == (halted["halted_reason"], halted["halted_data"])


def test_halt_withdraws_what_is_not_activated_and_leaves_what_is(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument]
) -> None:
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 100}])
    pilot[0].moves(context, "downloading", "running")
    pilot[1].moves(context, "probation", "running")
    pilot[2].succeeds(context)
    answer = operator.post(f"/api/v1/deployments/{number}/halt", json={"reason": "it draws debris"})
    assert answer.json()["halted_reason"] == "operator: it draws debris"
    assert member_states(context, number) == ["waiting", "updating", "succeeded"]
    wanted = [i.ask(context).deployment_id for i in pilot]
    assert wanted == [None, number, number]
    pilot[1].moves(context, "idle", "rolled-back", "too slow")
    assert pilot[1].ask(context).release is None
    assert member_states(context, number) == ["waiting", "rolled-back", "succeeded"]
    operator.post(f"/api/v1/deployments/{number}/resume", json={})
    assert member_states(context, number) == ["offered", "rolled-back", "succeeded"]
    pilot[0].succeeds(context)
    assert deployment(context, number).state == "succeeded"


def test_one_that_activated_while_it_was_halted_keeps_it(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument]
) -> None:
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 100}])
    pilot[0].moves(context, "self-testing", "running")
    update = pilot[0].update
    assert update is not None
    operator.post(f"/api/v1/deployments/{number}/halt", json={"reason": "stop"})
    pilot[0].update, pilot[0].state = update.model_copy(update={"state": "probation"}), "probation"
    pilot[0].report(context)
    assert member_states(context, number)[0] == "updating"
    assert pilot[0].ask(context).deployment_id == number
    with context.reading() as db:
        assert db.get_one(Device, pilot[0].device.device_id).alarms == {}


def test_silence_halts(
    context: Context,
    publisher: Publisher,
    operator: TestClient,
    pilot: list[Instrument],
    later: Callable[[float], None],
) -> None:
    phases = [{"count": 1, "silent_after_s": 600}, {"percent": 100}]
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", phases)
    later(599)
    tick(context)
    assert member_states(context, number)[0] == "offered"
    later(2)
    tick(context)
    assert member_states(context, number) == ["silent", "waiting", "waiting"]
    assert "XYZ-001 is silent" in deployment(context, number).halted_reason
    assert pilot[0].ask(context).release is None
    pilot[0].report(context)
    assert member_states(context, number)[0] == "waiting", "it is heard again, and has not activated anything"
    operator.post(f"/api/v1/deployments/{number}/resume", json={})
    pilot[0].succeeds(context)
    assert member_states(context, number) == ["succeeded", "offered", "offered"]


def test_soak_and_approval(
    context: Context,
    publisher: Publisher,
    as_role: Callable[[str], TestClient],
    pilot: list[Instrument],
    later: Callable[[float], None],
) -> None:
    operator, approver = as_role("operator"), as_role("approver")
    phases = [{"count": 1, "soak_s": 60}, {"percent": 100, "approval": True}]
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", phases)
    pilot[0].succeeds(context)
    waits = operator.get(f"/api/v1/deployments/{number}").json()["waits_for"]
    assert waits.startswith("phase 1 is watched until 2026-03-02 09:01:00")
    assert approver.post(f"/api/v1/deployments/{number}/approve", json={}).json()["type"].endswith("not-waiting")
    later(60)
    tick(context)
    assert deployment(context, number).state == "awaiting-approval"
    assert operator.post(f"/api/v1/deployments/{number}/approve", json={}).status_code == 403
    assert approver.post(f"/api/v1/deployments/{number}/approve", json={"reason": "looks good"}).status_code == 200
    assert member_states(context, number) == ["succeeded", "offered", "offered"]
    assert deployment(context, number).approved_by == "approver"


def test_an_instrument_that_runs_it_already_succeeds_without_an_update(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument]
) -> None:
    release = publisher.publish(operator, "1.0.0")
    start(operator, release, "pilot", [{"percent": 100}])
    for i in pilot:
        i.succeeds(context)
    again = start(operator, release, "pilot", [{"percent": 100}])
    for i in pilot:
        i.report(context)
    assert member_states(context, again) == ["succeeded"] * 3
    assert deployment(context, again).state == "succeeded"


def test_going_back_is_asked_for_in_words(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument]
) -> None:
    old, new = publisher.publish(operator, "1.0.0"), publisher.publish(operator, "1.1.0")
    start(operator, new, "pilot", [{"percent": 100}])
    for i in pilot:
        i.succeeds(context)
    body = {"release_id": old, "group": "pilot"}
    answer = operator.post("/api/v1/deployments", json=body)
    assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[-1]) == (409, "downgrade")
    assert operator.post("/api/v1/deployments", json={**body, "allow_downgrade": True}).status_code == 201


@pytest.mark.usefixtures("pilot")
def test_two_deployments_to_one_group_at_once(
    context: Context, publisher: Publisher, operator: TestClient, reopen: Callable[[], Context]
) -> None:
    release = publisher.publish(operator, "1.0.0")
    request = DeploymentRequest(release_id=release, group="pilot", phases=(Phase(count=1), Phase(percent=100)))
    servers, begin = [context, reopen(), reopen(), reopen()], threading.Barrier(4)
    outcomes: list[int | str] = []

    def try_it(server: Context) -> None:
        begin.wait(30)
        try:
            with server.sessions() as db:
                outcomes.append(deployments.create(db, server, person("operator"), request).id)
        except RequestRefused as e:
            outcomes.append(e.code)

    threads = [threading.Thread(target=try_it, args=(s,)) for s in servers]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len(outcomes) == 4
    assert sorted(str(o) for o in outcomes)[1:] == ["group-busy"] * 3
    with context.reading() as db:
        assert db.query(AuditEvent).filter_by(action="deployment.started").count() == 1


def test_many_reports_at_once_are_all_counted(
    context: Context, publisher: Publisher, operator: TestClient, world: World, reopen: Callable[[], Context]
) -> None:
    crew = instruments(world, "many", 8)
    number = start(operator, publisher.publish(operator, "1.0.0"), "many", [{"percent": 100}])
    servers, begin = [context, reopen()], threading.Barrier(9)
    errors: list[BaseException] = []

    def work(i: int, one: Instrument) -> None:
        begin.wait(30)
        try:
            one.succeeds(servers[i % 2])
        except BaseException as e:
            errors.append(e)

    def look() -> None:
        begin.wait(30)
        try:
            for _ in range(10):
                reconcile(servers[1], number)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(i, one)) for i, one in enumerate(crew)]
    threads.append(threading.Thread(target=look))
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert errors == []
    assert member_states(context, number) == ["succeeded"] * 8
    assert deployment(context, number).state == "succeeded"


def test_a_halt_does_not_overwrite_what_a_report_is_just_writing(
    context: Context,
    publisher: Publisher,
    operator: TestClient,
    pilot: list[Instrument],
    reopen: Callable[[], Context],
) -> None:
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 100}])
    other = reopen()

    def halt() -> None:
        with other.sessions() as db:
            deployments.halt(db, other, person("operator"), number, "stop")

    halting = threading.Thread(target=halt)
    with context.sessions() as db:
        db.scalars(select(Device).where(Device.id == pilot[0].device.device_id).with_for_update()).one()
        member = db.get_one(DeploymentMember, (number, pilot[0].device.device_id))
        member.state, member.reason, member.ended_at = "failed", "the disk is full", context.clock.now()
        db.flush()
        halting.start()
        wait_until_blocked(context, halting)
    halting.join(60)
    assert not halting.is_alive()
    assert member_states(context, number) == ["failed", "waiting", "waiting"]


def test_who_leaves_the_group_or_the_fleet_is_no_member_and_who_comes_is(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument], world: World
) -> None:
    world.group("other")
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", TWO)
    by = person("operator")
    with context.sessions() as db:
        devices.move(db, context, by, pilot[0].device.name, "other")
        devices.revoke(db, context, by, pilot[1].device.name, "stolen")
    new = Instrument(world.device("AAA-001", group="pilot"))
    tick(context)
    assert member_states(context, number) == ["offered", "waiting"], "AAA-001 comes first by its name"
    assert pilot[0].ask(context).release is None
    assert new.ask(context).deployment_id == number


def test_the_director_names_what_is_desired_and_nothing_is_signed_for_nothing(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument]
) -> None:
    def files() -> dict[str, bytes]:
        with context.reading() as db:
            return {f.path: f.content for f in db.query(TrustFile) if f.path.startswith("director/dev-")}

    tick(context)
    assert {p.split("/")[1] for p in files()} == {i.device.device_id for i in pilot}, "everybody has some"
    before = files()
    tick(context)
    assert files() == before
    start(operator, publisher.publish(operator, "1.0.0"), "pilot", TWO)
    changed = {p.split("/")[1] for p in files().keys() - before.keys()}
    assert changed == {pilot[0].device.device_id}


@pytest.mark.usefixtures("publisher", "pilot")
def test_metadata_is_renewed_at_half_its_life(
    context: Context, later: Callable[[float], None], fleet_settings: FleetSection
) -> None:

    def stamps() -> dict[str, bytes]:
        with context.reading() as db:
            return {f.path: f.content for f in db.query(TrustFile) if f.path.endswith("/timestamp.json")}

    tick(context)
    first = stamps()
    assert len(first) == 4
    later(fleet_settings.director_s / 2 - 60)
    tick(context)
    assert stamps() == first
    later(120)
    tick(context)
    renewed = stamps()
    assert [renewed[p] != first[p] for p in first] == [True] * 4


def test_a_silent_member_that_leaves_the_group_is_no_member(
    context: Context, publisher: Publisher, operator: TestClient, world: World, later: Callable[[float], None]
) -> None:
    world.group("other")
    two = instruments(world, "pilot", 2)
    phases = [{"percent": 100, "max_failures": 1, "silent_after_s": 60, "soak_s": 3600}]
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", phases)
    later(61)
    two[0].succeeds(context)
    assert member_states(context, number) == ["succeeded", "silent"]
    with context.sessions() as db:
        devices.move(db, context, person("operator"), two[1].device.name, "other")
    tick(context)
    assert member_states(context, number) == ["succeeded"]


def test_a_newer_release_of_another_model_is_no_downgrade(
    context: Context, publisher: Publisher, operator: TestClient, pilot: list[Instrument]
) -> None:
    old, new = publisher.publish(operator, "1.0.0"), publisher.publish(operator, "1.1.0")
    with context.sessions() as db:
        newer = db.get_one(Release, new)
        for i in pilot:
            db.get_one(Device, i.device.device_id).active_sha256 = newer.sha256
        newer.name = "another-model"
    start(operator, old, "pilot", [{"percent": 100}])
