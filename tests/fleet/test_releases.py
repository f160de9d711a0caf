"""Releases: what is taken, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import LineageRecord, Release, TrustFile
from cellfleet.lineage import SigningKey, sign
from support_fleet import TestClient, World
from support_rollout import Publisher, decision, instruments, start

OVERRIDE = {"reason": "the lab in Leiden needs it today; agreed by phone"}
As = Callable[[str], TestClient]


def word(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "").rsplit(":", 1)[-1]


def actions(context: Context) -> list[str]:
    with context.reading() as db:
        return [e.action for e in reversed(audit.listing(db, subject="release:"))]


def test_a_release_is_published_once(context: Context, publisher: Publisher, as_role: As) -> None:
    body = publisher.request("1.0.0", notes="Finer outlines", card={"name": "cells"})
    http = as_role("operator")
    answer = http.post("/api/v1/releases", json=body)
    assert answer.status_code == 201
    again = http.post("/api/v1/releases", json=body)
    assert (again.status_code, again.json()) == (200, answer.json())
    shown = as_role("viewer").get(f"/api/v1/releases/{answer.json()['release']['release_id']}").json()
    assert (shown["verdict"], shown["approver"], shown["override"]) == ("passed", "Dr Lin Mei-hua", {})
    assert (shown["decision"]["verdict"], shown["decision_problem"]) == ("passed", "")
    assert actions(context) == ["release.published"]
    with context.reading() as db:
        assert db.get(LineageRecord, ("decision", shown["decision_digest"])) is not None


def test_the_gate(context: Context, publisher: Publisher, as_role: As) -> None:
    operator, approver = as_role("operator"), as_role("approver")
    failed = publisher.request("1.0.0", verdict="failed", keep=False)
    missing = {**failed, "decision": None}
    foreign = {
        **failed,
        "decision": sign(decision(failed["release"]["sha256"]), SigningKey(Ed25519PrivateKey.generate())),
    }
    other = {**failed, "decision": sign(decision("0" * 64), publisher.key)}
    forged = copy.deepcopy(failed)
    forged["decision"]["payload"] = other["decision"]["payload"]
    assert word(operator.post("/api/v1/releases", json=failed)) == (409, "gate-failed")
    assert word(operator.post("/api/v1/releases", json=missing)) == (409, "decision-missing")
    for wrong in (foreign, other, forged):
        assert word(operator.post("/api/v1/releases", json=wrong)) == (409, "decision-untrusted")
        with_override = {**wrong, "override": OVERRIDE}
        assert word(approver.post("/api/v1/releases", json=with_override)) == (409, "decision-untrusted")
    with context.reading() as db:
        assert db.query(Release).count() == 0
        assert db.get(TrustFile, "image/2.snapshot.json") is None, "nothing of it was taken"
    assert word(operator.post("/api/v1/releases", json={**failed, "override": OVERRIDE})) == (403, "forbidden")
    assert operator.post("/api/v1/releases", json={**failed, "override": {"reason": "short"}}).status_code == 422


@pytest.mark.parametrize("verdict", ["failed", ""])
def test_an_approver_overrides_and_it_is_shown(
    context: Context, publisher: Publisher, as_role: As, verdict: str
) -> None:
    body = publisher.request("1.0.0", verdict=verdict, override=OVERRIDE)
    answer = as_role("approver").post("/api/v1/releases", json=body)
    assert answer.status_code == 201
    override = answer.json()["override"]
    assert (override["reason"], override["by"]) == (OVERRIDE["reason"], "approver")
    assert override["against"]
    assert actions(context) == ["release.published", "release.overridden"]


def test_an_override_that_was_not_needed_is_none(publisher: Publisher, as_role: As) -> None:
    body = publisher.request("1.0.0", override=OVERRIDE)
    assert as_role("operator").post("/api/v1/releases", json=body).json()["override"] == {}


def test_metadata_that_does_not_hold(context: Context, publisher: Publisher, as_role: As) -> None:
    http = as_role("operator")
    good = publisher.request("1.0.0", keep=False)

    def refused(change: dict[str, Any], **release: Any) -> None:
        body = {**good, **change, "release": {**good["release"], **release}}
        assert word(http.post("/api/v1/releases", json=body)) == (409, "metadata-refused")

    snapshot = good["metadata"]["2.snapshot.json"]
    refused({"metadata": {"2.snapshot.json": snapshot}})
    refused(
        {"metadata": {**good["metadata"], "2.models.json": good["metadata"]["2.models.json"].replace("1.0.0", "1.0.1")}}
    )
    refused({"metadata": {"2.snapshot.json": "{}"}})
    refused({"metadata": {"../../etc/passwd": "x"}})
    refused({}, counter=7)
    refused({}, version="1.0.1")
    refused({}, target_path="models/cells/1.0.0/other.bundle.zip")
    with context.reading() as db:
        assert db.query(Release).count() == 0
    assert http.post("/api/v1/releases", json=good).status_code == 201


def test_what_is_released_stays(context: Context, publisher: Publisher, as_role: As) -> None:
    http = as_role("operator")
    body = publisher.request("1.0.0")
    http.post("/api/v1/releases", json=body)
    changed = {**body, "release": {**body["release"], "version": "1.0.1"}}
    assert word(http.post("/api/v1/releases", json=changed)) == (409, "release-exists")
    context.blobs.remove(body["release"]["sha256"])
    assert word(http.post("/api/v1/releases", json=body)) == (409, "artifact-missing")


def test_an_artifact_of_another_length(publisher: Publisher, as_role: As) -> None:
    body = publisher.request("1.0.0", keep=False)
    for length in (body["release"]["length"] + 1, body["release"]["length"] - 1):
        wrong = {**body, "release": {**body["release"], "length": length}}
        assert word(as_role("operator").post("/api/v1/releases", json=wrong)) == (409, "artifact-missing")


def test_a_withdrawal_is_in_the_audit(context: Context, publisher: Publisher, as_role: As) -> None:
    operator = as_role("operator")
    release = publisher.publish(operator, "1.0.0")
    assert operator.post(f"/api/v1/releases/{release}/withdraw", json={"reason": "takes debris"}).status_code == 200
    with context.reading() as db:
        events = [(e.action, e.actor, e.reason) for e in audit.listing(db, subject=f"release:{release}")]
    assert events[0] == ("release.withdrawn", "person:operator", "takes debris")
    assert events[1][0] == "release.published"


def test_without_decision_keys_nothing_is_believed(context: Context, publisher: Publisher, as_role: As) -> None:
    context.path("keys/decision.pem.pub").unlink()
    assert word(as_role("operator").post("/api/v1/releases", json=publisher.request("1.0.0"))) == (
        409,
        "decision-untrusted",
    )


def test_a_release_withdrawn_while_it_is_being_downloaded(
    context: Context, publisher: Publisher, as_role: As, world: World
) -> None:
    operator, pilot = as_role("operator"), instruments(world, "pilot", 2)
    content = bytes(range(256)) * 40
    release = publisher.publish(operator, "1.0.0", content=content)
    start(operator, release, "pilot", [{"count": 1}, {"percent": 100}])
    http = pilot[0].device.http
    assert http is not None
    wanted = pilot[0].ask(context).release
    assert wanted is not None
    url = f"/api/v1/artifacts/{wanted.sha256}"
    first = http.get(url, headers={"Range": "bytes=0-4999"})
    answer = operator.post(f"/api/v1/releases/{release}/withdraw", json={"reason": "draws debris"})
    assert answer.json()["withdrawn_at"] is not None
    rest = http.get(url, headers={"Range": "bytes=5000-", "If-Range": first.headers["etag"]})
    assert (first.status_code, rest.status_code, first.content + rest.content) == (206, 206, content)
    pilot[0].succeeds(context)
    world.group("other")
    again = operator.post("/api/v1/deployments", json={"release_id": release, "group": "other"})
    assert word(again) == (409, "release-withdrawn")
    assert word(operator.post(f"/api/v1/releases/{release}/withdraw", json={})) == (409, "release-withdrawn")
    assert pilot[1].ask(context).release is not None, "the deployment that runs goes on"
