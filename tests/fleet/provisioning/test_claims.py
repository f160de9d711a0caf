"""Provisioning: claim token, key, decision, access token; and all that must not get in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from cellfleet.canonical import digest_of
from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.provisioning import claims
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.store.models import AuditEvent, Device
from cellfleet.ports import FixedClock
from cellfleet.wire.enrol import ClaimRequest
from cellfleet.wire.problem import Problem
from support_fleet import TestClient, TestDevice, World, code_of


@pytest.fixture
def operator(world: World) -> TestClient:
    world.trust()
    return world.as_role("operator")


def claim_token(operator: TestClient, note: str = "") -> str:
    response = operator.post("/api/v1/claims", json={"note": note})
    assert response.status_code == 201
    return str(response.json()["token"])


def provision(operator: TestClient, client: TestClient, name: str) -> TestDevice:
    device = TestDevice(name)
    reply = client.post("/api/v1/devices/claim", json=device.claim(claim_token(operator)))
    assert reply.status_code == 201
    assert reply.json()["state"] == "pending"
    device.device_id = reply.json()["device_id"]
    return device


def test_from_a_claim_token_to_an_access_token(operator: TestClient, client: TestClient, clock: FixedClock) -> None:
    device = provision(operator, client, "XYZ-001")
    asked = client.post("/api/v1/devices/token", json=device.token_request(clock.now(), "n" * 16))
    assert asked.status_code == 403
    assert code_of(asked) == "pending"
    assert operator.post("/api/v1/groups", json={"name": "pilot"}).status_code == 201
    accepted = operator.post("/api/v1/devices/XYZ-001/accept", json={"group": "pilot"}).json()
    assert (accepted["state"], accepted["group"], accepted["decided_by"]) == ("accepted", "pilot", "operator")
    token = client.post("/api/v1/devices/token", json=device.token_request(clock.now(), "m" * 16))
    assert token.status_code == 200
    assert token.json()["token"].startswith("cfd_")


def test_a_name_that_looks_like_an_id_is_refused(operator: TestClient, client: TestClient, context: Context) -> None:
    token = claim_token(operator)
    answer = client.post("/api/v1/devices/claim", json=TestDevice("dev-0123456789ab").claim(token))
    assert (answer.status_code, code_of(answer)) == (422, "bad-name")
    with context.reading() as db:
        assert db.query(Device).count() == 0
        assert audit.listing(db)[0].action == "claim.refused"
    assert client.post("/api/v1/devices/claim", json=TestDevice("XYZ-001").claim(token)).status_code == 201


def test_an_old_device_whose_name_looks_like_an_id_may_claim_again(
    operator: TestClient, client: TestClient, context: Context
) -> None:
    device, token = TestDevice("XYZ-001"), claim_token(operator)
    assert client.post("/api/v1/devices/claim", json=device.claim(token)).status_code == 201
    device.name = "dev-0123456789ab"
    with context.sessions() as db:
        db.query(Device).one().name = device.name
    assert client.post("/api/v1/devices/claim", json=device.claim(token)).status_code == 200


def test_the_token_ends_in_the_anchors_digest(operator: TestClient, context: Context) -> None:
    token = claim_token(operator)
    with context.reading() as db:
        from cellfleet.fleet import trust_repository

        anchors = trust_repository.anchors(db).model_dump(mode="json")
    assert token.rsplit(".", 1)[1] == digest_of(anchors)[:32]


def test_no_claim_token_without_trust_roots(as_role: Callable[[str], TestClient]) -> None:
    response = as_role("operator").post("/api/v1/claims", json={})
    assert response.status_code == 503
    assert code_of(response) == "no-trust"


def test_a_claim_token_used_twice(operator: TestClient, client: TestClient, context: Context) -> None:
    token = claim_token(operator)
    assert client.post("/api/v1/devices/claim", json=TestDevice("XYZ-001").claim(token)).status_code == 201
    second = client.post("/api/v1/devices/claim", json=TestDevice("XYZ-002").claim(token))
    assert second.status_code == 409
    assert code_of(second) == "token-used"
    with context.reading() as db:
        assert db.query(Device).count() == 1
        refused = db.query(AuditEvent).filter_by(action="claim.refused").one()
        assert refused.detail["word"] == "token-used"


def test_a_lost_answer_does_no_harm(operator: TestClient, client: TestClient) -> None:
    token, device = claim_token(operator), TestDevice("XYZ-001")
    first = client.post("/api/v1/devices/claim", json=device.claim(token))
    again = client.post("/api/v1/devices/claim", json=device.claim(token))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


def test_a_claim_token_used_by_eight_devices_at_once(operator: TestClient, context: Context) -> None:
    token = claim_token(operator)
    words: list[str] = []

    def claim(number: int) -> None:
        request = ClaimRequest.model_validate(TestDevice(f"XYZ-{number:03}").claim(token))
        try:
            words.append(claims.claim(context, request).state)
        except RequestRefused as e:
            words.append(e.code)

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(words) == ["pending", *["token-used"] * 7]
    with context.reading() as db:
        assert audit.verify(db).broken_at is None


def test_two_devices_with_one_key(operator: TestClient, client: TestClient, context: Context) -> None:
    first = provision(operator, client, "XYZ-001")
    copy = TestDevice("XYZ-002", key=first.key)
    response = client.post("/api/v1/devices/claim", json=copy.claim(claim_token(operator)))
    assert response.status_code == 409
    assert code_of(response) == "key-known"
    with context.reading() as db:
        device = db.query(Device).one()
        assert "XYZ-002" in device.alarms["key-reused"]
        assert db.query(AuditEvent).filter_by(action="device.alarm").count() == 1


def test_a_name_that_is_taken(operator: TestClient, client: TestClient) -> None:
    provision(operator, client, "XYZ-001")
    response = client.post("/api/v1/devices/claim", json=TestDevice("XYZ-001").claim(claim_token(operator)))
    assert response.status_code == 409
    assert code_of(response) == "name-taken"


def test_a_revoked_device_gives_its_name_to_its_successor(operator: TestClient, client: TestClient) -> None:
    old = provision(operator, client, "XYZ-001")
    assert operator.post("/api/v1/devices/XYZ-001/accept", json={}).status_code == 200
    assert operator.post("/api/v1/devices/XYZ-001/revoke", json={"reason": "new disk"}).status_code == 200
    new = provision(operator, client, "XYZ-001")
    names = {d["id"]: d["name"] for d in operator.get("/api/v1/devices").json()["items"]}
    assert names == {new.device_id: "XYZ-001", old.device_id: f"XYZ-001.was-{old.device_id[4:]}"}


def test_tokens_that_do_not_count(operator: TestClient, client: TestClient, later: Callable[[float], None]) -> None:
    unknown = client.post("/api/v1/devices/claim", json=TestDevice("XYZ-001").claim("cfc_" + "x" * 60))
    assert (unknown.status_code, code_of(unknown)) == (401, "unknown-claim-token")
    made = operator.post("/api/v1/claims", json={"valid_h": 1}).json()
    later(3601)
    expired = client.post("/api/v1/devices/claim", json=TestDevice("XYZ-001").claim(made["token"]))
    assert (expired.status_code, code_of(expired)) == (401, "claim-token-expired")
    made = operator.post("/api/v1/claims", json={}).json()
    assert operator.delete(f"/api/v1/claims/{made['id']}").status_code == 204
    revoked = client.post("/api/v1/devices/claim", json=TestDevice("XYZ-001").claim(made["token"]))
    assert (revoked.status_code, code_of(revoked)) == (401, "claim-token-expired")


def test_a_claim_without_the_private_key(operator: TestClient, client: TestClient) -> None:
    token, thief, owner = claim_token(operator), TestDevice("XYZ-001"), TestDevice("XYZ-001")
    body = thief.claim(token) | {"public_key": owner.public_key}
    response = client.post("/api/v1/devices/claim", json=body)
    assert (response.status_code, code_of(response)) == (422, "bad-proof")
    garbage = thief.claim(token) | {"public_key": "-----BEGIN NONSENSE-----" + "x" * 20}
    assert code_of(client.post("/api/v1/devices/claim", json=garbage)) == "bad-key"


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "C:\\x", "..", "", "x" * 65, "n\u0000l"])
def test_a_path_in_a_name(operator: TestClient, client: TestClient, name: str) -> None:
    body = TestDevice("XYZ-001").claim(claim_token(operator)) | {"name": name}
    response = client.post("/api/v1/devices/claim", json=body)
    assert response.status_code == 422
    assert Problem.model_validate(response.json()).errors[0]["where"] == "body.name"


def test_an_access_token_takes_the_right_key_clock_and_nonce(
    world: World, client: TestClient, clock: FixedClock
) -> None:
    device, other = world.device("XYZ-001"), world.device("XYZ-002")
    now, path = clock.now(), "/api/v1/devices/token"
    good = device.token_request(now, "0123456789abcdef")
    assert client.post(path, json=good).status_code == 200
    assert code_of(client.post(path, json=good)) == "nonce-used"
    forged = other.token_request(now, "f" * 16) | {"device_id": device.device_id}
    assert code_of(client.post(path, json=forged)) == "bad-signature"
    for minutes in (-6, 6):
        late = device.token_request(now + timedelta(minutes=minutes), f"{minutes:016}")
        assert code_of(client.post(path, json=late)) == "clock"
    assert client.post(path, json=device.token_request(now + timedelta(minutes=4), "e" * 16)).status_code == 200
    unknown = good | {"device_id": "dev-" + "0" * 12}
    assert client.post(path, json=unknown).status_code == 401


def test_the_clock_as_it_stands_in_the_message_is_what_was_signed(
    world: World, client: TestClient, clock: FixedClock
) -> None:
    """Another program writes the same time in another way."""
    from cellfleet.wire.enrol import token_statement

    device, nonce = world.device("XYZ-001"), "a" * 20
    issued_at = (clock.now() + timedelta(hours=1)).isoformat().replace("+00:00", "+01:00")
    signature = device.sign(token_statement(device.device_id, issued_at, nonce))
    body = {"device_id": device.device_id, "issued_at": issued_at, "nonce": nonce, "signature": signature}
    assert client.post("/api/v1/devices/token", json=body).status_code == 200


def test_access_tokens_end(world: World, context: Context, later: Callable[[float], None]) -> None:
    from cellfleet.fleet.people import access

    device = world.device("XYZ-001")
    assert device.http is not None
    token = device.http.headers["authorization"].removeprefix("Bearer ")
    with context.reading() as db:
        assert access.find_device(db, context.clock.now(), token).name == "XYZ-001"
    later(context.settings.device_token_s)
    with context.reading() as db, pytest.raises(RequestRefused, match="expired"):
        access.find_device(db, context.clock.now(), token)


def test_revoking_ends_tokens_at_once(world: World, context: Context) -> None:
    from cellfleet.fleet.people import access

    device = world.device("XYZ-001")
    assert device.http is not None
    token = device.http.headers["authorization"].removeprefix("Bearer ")
    revoked = world.as_role("operator").post("/api/v1/devices/XYZ-001/revoke", json={"reason": "stolen"})
    assert revoked.json()["state"] == "revoked"
    with context.reading() as db, pytest.raises(RequestRefused) as refusal:
        access.find_device(db, context.clock.now(), token)
    assert refusal.value.status in (401, 403)


def test_a_claim_token_ends_at_its_time(
    operator: TestClient, client: TestClient, later: Callable[[float], None]
) -> None:
    tokens = [operator.post("/api/v1/claims", json={"valid_h": 1}).json()["token"] for _ in range(2)]
    later(3599)
    assert client.post("/api/v1/devices/claim", json=TestDevice("XYZ-001").claim(tokens[0])).status_code == 201
    later(1)
    late = client.post("/api/v1/devices/claim", json=TestDevice("XYZ-002").claim(tokens[1]))
    assert (late.status_code, code_of(late)) == (401, "claim-token-expired")


@pytest.mark.parametrize("seconds", [300, -300])
def test_a_clock_may_be_off_by_as_much_as_is_tolerated(
    world: World, client: TestClient, clock: FixedClock, seconds: int
) -> None:
    device = world.device("XYZ-001")
    good = device.token_request(clock.now() + timedelta(seconds=seconds), "n" * 16)
    assert client.post("/api/v1/devices/token", json=good).status_code == 200
    bad = device.token_request(clock.now() + timedelta(seconds=seconds + (1 if seconds > 0 else -1)), "m" * 16)
    answer = client.post("/api/v1/devices/token", json=bad)
    assert (answer.status_code, code_of(answer)) == (401, "clock")


@pytest.mark.parametrize("state", ["pending", "rejected", "revoked"])
def test_a_device_that_is_no_member_gets_no_access_token(
    world: World, client: TestClient, clock: FixedClock, state: str
) -> None:
    device = world.device("XYZ-001", state=state)
    answer = client.post("/api/v1/devices/token", json=device.token_request(clock.now(), "n" * 16))
    assert (answer.status_code, code_of(answer)) == (403, state)


def test_the_same_token_and_key_under_another_name_is_no_second_claim(operator: TestClient, client: TestClient) -> None:
    device, token = TestDevice("XYZ-001"), claim_token(operator)
    assert client.post("/api/v1/devices/claim", json=device.claim(token)).status_code == 201
    device.name = "XYZ-002"
    assert code_of(client.post("/api/v1/devices/claim", json=device.claim(token))) == "token-used"


def test_claims_are_in_the_audit(operator: TestClient, client: TestClient, context: Context) -> None:
    token = claim_token(operator, "room 4.12")
    assert operator.post("/api/v1/claims", json={}).status_code == 201
    assert operator.delete("/api/v1/claims/2").status_code == 204
    assert client.post("/api/v1/devices/claim", json=TestDevice("XYZ-001").claim(token)).status_code == 201
    with context.reading() as db:
        events = [(e.action, e.subject) for e in db.query(AuditEvent).order_by(AuditEvent.seq)]
        device_id = db.query(Device).one().id
    assert events == [
        ("claim.made", "claim:1"), ("claim.made", "claim:2"), ("claim.revoked", "claim:2"),
        ("device.claimed", f"device:{device_id}"),
    ]  # fmt: skip
