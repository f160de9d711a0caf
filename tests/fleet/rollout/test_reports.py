"""What devices ask and tell, and devices that lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.provisioning.alarms import raise_alarm
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.rollout import reports
from cellfleet.fleet.rollout.reports import judge
from cellfleet.fleet.store.models import DeploymentMember, Device
from cellfleet.wire.reason import because
from cellfleet.wire.states import Counters, ReportedState, SlotReport, UpdateReport
from support_fleet import FACTS, TestClient, World
from support_rollout import Instrument, Publisher, digest, instruments, member_states, start

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def report(**more: Any) -> ReportedState:
    facts = {
        "device_id": "dev-0123456789ab", "sequence": 5, "boot_id": "b1", "at": NOW, "generation": 0, "state": "idle",
        "facts": FACTS,
    }  # fmt: skip
    return ReportedState.model_validate({**facts, **more})


@pytest.mark.parametrize(
    ("sequence", "boot", "stale", "refused"),
    [
        (4, "b1", False, False),
        (4, "b0", False, False),
        (5, "b1", True, False),
        (9, "b1", True, False),
        (5, "b0", True, True),
    ],
)
def test_the_order_of_reports(sequence: int, boot: str, stale: bool, refused: bool) -> None:
    judged = judge({}, sequence, boot, report(), NOW)
    assert (judged.stale, judged.refused) == (stale, refused)
    assert ("two-machines" in judged.alarms) is refused


def test_counters_that_go_back_and_clocks_that_are_off() -> None:
    before = report(counters=Counters(taken=10, stored=10, segmented=9)).model_dump(mode="json")
    judged = judge(
        before, 4, "b1", report(counters=Counters(taken=10, stored=10, segmented=8), at=NOW + timedelta(days=2)), NOW
    )
    assert judged.alarms == {
        "counters-back": because("alarm.counters", now=8, counter="segmented", before=9),
        "clock": because("alarm.clock-ahead", hours=48.0),
    }


def test_masks_may_become_fewer_after_a_rollback_only() -> None:
    before = report(counters=Counters(taken=10, stored=10, segmented=9)).model_dump(mode="json")
    update = UpdateReport(
        deployment_id=1, release_id=1, state="idle", outcome="rolled-back", reason="slow", started_at=NOW, changed_at=NOW,
    )  # fmt: skip
    fewer = Counters(taken=11, stored=11, segmented=7)
    for more in ({"update": update}, {"state": "rolling-back"}):
        assert judge(before, 4, "b1", report(counters=fewer, **more), NOW).alarms == {}
    assert set(judge(before, 4, "b1", report(counters=fewer), NOW).alarms) == {"counters-back"}
    gone = Counters(taken=9, stored=9, segmented=7)
    assert set(judge(before, 4, "b1", report(counters=gone, update=update), NOW).alarms) == {"counters-back"}


@pytest.fixture
def one(world: World) -> Instrument:
    return instruments(world, "pilot", 1)[0]


def alarms(context: Context, one: Instrument) -> dict[str, Any]:
    with context.reading() as db:
        return db.get_one(Device, one.device.device_id).alarms


def noted(context: Context, action: str) -> list[str]:
    with context.reading() as db:
        return [e.reason for e in audit.listing(db, action=action)]


def test_polling_costs_one_row_and_no_signature(context: Context, one: Instrument) -> None:
    assert one.device.http is not None
    first = one.device.http.get("/api/v1/device/desired")
    assert (first.status_code, first.json()["release"], first.json()["generation"]) == (200, None, 0)
    etag = first.headers["etag"]
    one.device.http.get("/api/v1/device/desired", headers={"If-None-Match": etag})
    statements: list[str] = []
    event.listen(context.database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    same = one.device.http.get("/api/v1/device/desired", headers={"If-None-Match": f'W/"x", {etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert len([s for s in statements if s.startswith("SELECT")]) == 2, "the token and the desired state"
    assert not [s for s in statements if not s.startswith(("SELECT", "BEGIN"))]


def test_the_etag_changes_with_the_desired_state(
    context: Context, publisher: Publisher, as_role: Callable[[str], TestClient], one: Instrument
) -> None:
    http, operator = one.device.http, as_role("operator")
    assert http is not None
    etag = http.get("/api/v1/device/desired").headers["etag"]
    number = start(
        operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 100}], agent={"probation_frames": 8}
    )
    answer = http.get("/api/v1/device/desired", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["deployment_id"], body["generation"], body["agent"]) == (number, 1, {"probation_frames": 8})
    assert (body["release"]["version"], body["poll_s"]) == ("1.0.0", context.settings.poll_s)
    assert http.get("/api/v1/device/desired", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_a_report_is_stored_and_an_older_one_changes_nothing(context: Context, one: Instrument) -> None:
    http = one.device.http
    assert http is not None
    body = report(device_id=one.device.device_id, counters=Counters(taken=3)).model_dump(mode="json")
    assert http.put("/api/v1/device/reported", json=body).status_code == 204
    older = {**body, "sequence": 4, "counters": {"taken": 1}}
    assert http.put("/api/v1/device/reported", json=older).status_code == 204
    with context.reading() as db:
        row = db.get_one(Device, one.device.device_id)
        assert (row.reported["counters"]["taken"], row.reported_sequence, row.alarms) == (3, 5, {})
        assert row.last_seen_at == context.clock.now()


def test_two_machines_with_one_key(context: Context, one: Instrument) -> None:
    http = one.device.http
    assert http is not None
    body = report(device_id=one.device.device_id, sequence=100).model_dump(mode="json")
    assert http.put("/api/v1/device/reported", json=body).status_code == 204
    second = {**body, "sequence": 7, "boot_id": "of-the-copy"}
    for _ in range(2):
        answer = http.put("/api/v1/device/reported", json=second)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:cellfleet:problem:two-machines")
    assert "two machines use one key" in alarms(context, one)["two-machines"]
    assert len(noted(context, "device.alarm")) == 1, "told once"
    with context.reading() as db:
        assert db.get_one(Device, one.device.device_id).boot_id == "b1", "the first machine's report stands"
    assert http.put("/api/v1/device/reported", json={**body, "sequence": 101}).status_code == 204
    assert "two-machines" in alarms(context, one), "until a person has looked"


def test_an_alarm_is_cleared_by_a_person(
    context: Context, one: Instrument, as_role: Callable[[str], TestClient]
) -> None:
    with context.sessions() as db:
        raise_alarm(db, context, one.device.device_id, "two-machines", because("alarm.clock-ahead", hours=48))
    path = f"/api/v1/devices/{one.device.name}/alarms/clear"
    assert as_role("viewer").post(path, json={}).status_code == 403
    assert as_role("operator").post(path, json={"reason": "disk image removed"}).status_code == 204
    assert alarms(context, one) == {}
    assert noted(context, "device.alarms-cleared") == ["disk image removed"]
    assert as_role("operator").post("/api/v1/devices/NOBODY/alarms/clear", json={}).status_code == 404


def test_a_restored_disk_goes_on_after_a_person_has_looked(
    context: Context, one: Instrument, as_role: Callable[[str], TestClient]
) -> None:
    http, operator = one.device.http, as_role("operator")
    assert http is not None
    body = report(device_id=one.device.device_id, sequence=100).model_dump(mode="json")
    restored = {**body, "sequence": 7, "boot_id": "of-the-backup"}
    assert http.put("/api/v1/device/reported", json=body).status_code == 204
    assert http.put("/api/v1/device/reported", json=restored).status_code == 409
    path = f"/api/v1/devices/{one.device.name}/alarms/clear"
    assert operator.post(path, json={"reason": "its disk was restored"}).status_code == 204
    assert http.put("/api/v1/device/reported", json={**restored, "sequence": 8}).status_code == 204
    assert alarms(context, one) == {}
    assert http.put("/api/v1/device/reported", json={**body, "sequence": 5}).status_code == 409, (
        "the other one still runs"
    )
    assert "two-machines" in alarms(context, one)


def slot(sha256: str) -> SlotReport:
    return SlotReport(release_id=None, name="cells", version="9.9.9", counter=1, sha256=sha256, since=NOW)


def test_it_claims_an_artifact_that_nobody_published(context: Context, one: Instrument) -> None:
    one.active = slot(digest("mine"))
    one.report(context)
    assert "which this server never published" in alarms(context, one)["active-not-offered"]
    one.active = None
    one.report(context)
    assert alarms(context, one) == {}
    assert len(noted(context, "device.alarm-over")) == 1


def test_it_claims_a_release_that_it_was_never_offered(
    context: Context, publisher: Publisher, as_role: Callable[[str], TestClient], world: World
) -> None:
    operator, pilot = as_role("operator"), instruments(world, "pilot", 2)
    body = publisher.request("1.0.0")
    release = operator.post("/api/v1/releases", json=body).json()["release"]
    number = start(operator, release["release_id"], "pilot", [{"count": 1}, {"percent": 100}])
    pilot[1].active = slot(release["sha256"])
    pilot[1].update = UpdateReport(
        deployment_id=number, release_id=release["release_id"], state="idle", outcome="succeeded", started_at=NOW, changed_at=NOW
    )  # fmt: skip
    pilot[1].report(context)
    found = alarms(context, pilot[1])
    assert "never offered it" in found["active-not-offered"]
    assert found["update-not-offered"] == f"it reports deployment {number}, which was never offered to it"
    assert member_states(context, number) == ["offered", "waiting"]


def test_it_says_that_it_succeeded_and_runs_something_else(
    context: Context, publisher: Publisher, as_role: Callable[[str], TestClient], one: Instrument
) -> None:
    operator = as_role("operator")
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 100}])
    one.update = UpdateReport(
        deployment_id=number, release_id=None, state="idle", outcome="succeeded", started_at=NOW, changed_at=NOW
    )
    one.report(context)
    text = f"it reports that deployment {number} succeeded, and runs nothing"
    assert alarms(context, one)["update-not-offered"] == text
    assert member_states(context, number) == ["offered"]
    one.update = one.update.model_copy(update={"release_id": 77, "outcome": "running"})
    one.report(context)
    assert "it reports release 77" in alarms(context, one)["update-not-offered"]


def test_the_time_of_recovery_comes_after_the_end(
    context: Context, publisher: Publisher, as_role: Callable[[str], TestClient], one: Instrument
) -> None:
    operator = as_role("operator")
    number = start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"percent": 100}])
    one.moves(context, "idle", "rolled-back", "too slow")
    assert member_states(context, number) == ["rolled-back"]
    assert one.update is not None
    one.update = one.update.model_copy(update={"recovery_s": 4.2})
    one.report(context)
    one.update = one.update.model_copy(update={"outcome": "succeeded", "recovery_s": None})
    one.report(context)
    with context.reading() as db:
        member = db.get_one(DeploymentMember, (number, one.device.device_id))
        assert (member.state, member.update["recovery_s"]) == ("rolled-back", 4.2)


def test_it_reports_as_another_device(context: Context, world: World) -> None:
    a, b = instruments(world, "pilot", 2)
    message = report(device_id=b.device.device_id)
    with pytest.raises(RequestRefused) as refusal:
        reports.take(context, a.caller, message)
    assert (refusal.value.status, refusal.value.code) == (403, "other-device")
    assert noted(context, "device.report-refused") == [f"it reports as {b.device.device_id}"]


def test_a_report_of_another_size(one: Instrument) -> None:
    assert one.device.http is not None
    body = report(device_id=one.device.device_id).model_dump(mode="json")
    body["update"] = {"numbers": {"x": "y" * 600_000}}
    assert one.device.http.put("/api/v1/device/reported", json=body).status_code == 413


def test_people_have_no_desired_state(as_role: Callable[[str], TestClient], client: TestClient) -> None:
    assert as_role("admin").get("/api/v1/device/desired").status_code == 403
    assert client.get("/api/v1/device/desired").status_code == 401


@pytest.mark.parametrize(
    "text",
    ["NaN", "-Infinity", '"\\ud800"', '"a\\u0000b"', "1" + "0" * 400, "[" * 40 + "]" * 40],
    ids=["nan", "infinity", "half a character", "nul", "a huge number", "deep"],
)
def test_numbers_that_nobody_could_read_again_are_refused(
    text: str, context: Context, one: Instrument, as_role: Callable[[str], TestClient]
) -> None:
    http = one.device.http
    assert http is not None
    one.report(context)
    said = report(device_id=one.device.device_id).model_dump(mode="json")
    update = {"deployment_id": None, "release_id": None, "state": "idle", "outcome": "running"}
    said["update"] = {**update, "started_at": NOW.isoformat(), "changed_at": NOW.isoformat(), "numbers": {"x": "HERE"}}
    body = json.dumps(said).replace('"HERE"', text)
    answer = http.put("/api/v1/device/reported", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:cellfleet:problem:not-understood")
    assert as_role("viewer").get("/api/v1/devices").json()["items"][0]["reported"]["sequence"] == 1


@pytest.mark.parametrize(("off_s", "alarm"), [(86400, False), (86401, True), (-86400, False), (-86401, True)])
def test_a_clock_is_good_at_the_limit(off_s: int, alarm: bool) -> None:
    judged = judge({}, 4, "b1", report(at=NOW + timedelta(seconds=off_s)), NOW)
    assert ("clock" in judged.alarms) is alarm
    assert ("clock" in judged.clears) is not alarm


def test_counters_that_stay_are_good() -> None:
    before = report(counters=Counters(taken=10, stored=10, segmented=9))
    assert judge(before.model_dump(mode="json"), 4, "b1", before, NOW).alarms == {}


def test_a_member_that_waits_was_not_offered_what_it_runs(
    context: Context, publisher: Publisher, as_role: Callable[[str], TestClient], world: World
) -> None:
    operator, (first, second) = as_role("operator"), instruments(world, "pilot", 2)
    start(operator, publisher.publish(operator, "1.0.0"), "pilot", [{"count": 1}, {"percent": 100}])
    wanted = first.ask(context).release
    assert wanted is not None
    second.active = SlotReport(
        release_id=wanted.release_id, name=wanted.name, version=wanted.version, counter=wanted.counter,
        sha256=wanted.sha256, since=NOW,
    )  # fmt: skip
    reports.take(context, second.caller, second.report(context))
    with context.reading() as db:
        assert set(db.get_one(Device, second.device.device_id).alarms) == {"active-not-offered"}


def test_an_alarm_begins_and_ends_with_one_event_each(context: Context, one: Instrument) -> None:
    at = context.clock.now() + timedelta(days=3)
    for when in (at, at + timedelta(days=1), None):
        reports.take(context, one.caller, one.report(context, at=when))
    with context.reading() as db:
        events = [(e.action, e.detail["alarm"]) for e in reversed(audit.listing(db, action="device.alarm"))]
    assert events == [("device.alarm", "clock"), ("device.alarm-over", "clock")]
