"""What stands behind a mask, as the server tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from cellfleet.canonical import digest_of
from cellfleet.fleet import lineage
from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import telemetry
from cellfleet.fleet.people.access import Caller
from cellfleet.fleet.store.models import LineageRecord, Release
from cellfleet.lineage import sign
from cellfleet.wire.telemetry_events import Event, ExperimentStarted, FrameSegmented, FrameTaken
from cellfleet.wire.telemetry_otlp import encode_events
from support_fleet import TestClient, TestDevice, World
from support_rollout import Publisher, decision, digest

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
DATA_SET = {"entries": [{"split": "train"}, {"split": "train"}, {"split": "test"}]}
TRAINING = {"seed": 3, "epochs": 9, "data_set": digest_of(DATA_SET)}
LINEAGE = {
    "data_set": digest_of(DATA_SET), "training_run": digest_of(TRAINING), "project_commit": "c0ffee", "project_dirty": False,
    "environment": digest("environment"), "cellfleet_version": "0.2.0",
}  # fmt: skip
RUN = digest("run")
As = Callable[[str], TestClient]


@dataclass
class Story:
    context: Context
    http: TestClient
    device: TestDevice
    bundle: str

    def draw(self, frame: str = "A1_0001", bundle: str = "", pin: int = 1, **more: Any) -> None:
        events: list[Event] = [
            ExperimentStarted(experiment="p1", plate="A172", started_at=NOW, pin=pin, reason="" if pin == 1 else "too slow"),
            FrameTaken(
                experiment="p1", frame=frame, index=1, well="A1", time_s=60, taken_at=NOW, sha256=digest("raw"), bytes=9
            ),
            FrameSegmented(
                experiment="p1", frame=frame, pin=pin, run_digest=RUN, bundle_sha256=bundle or self.bundle,
                variant="onnxruntime/fp32", engine_version="1.23.2", count=42, confluence_percent=41.5,
                mask_sha256=digest("mask", pin), segmented_at=NOW, **more,
            ),
        ]  # fmt: skip
        caller = Caller(self.device.device_id, self.device.name)
        telemetry.take_logs(self.context, caller, digest(frame, bundle, pin), encode_events({}, events, NOW))

    def ask(self, path: str = "XYZ-001/p1/A1_0001") -> dict[str, dict[str, Any]]:
        answer = self.http.get(f"/api/v1/lineage/{path}")
        assert answer.status_code == 200, answer.text
        self.complete = answer.json()["complete"]
        links = answer.json()["links"]
        self.order = [link["what"] for link in links]
        return {link["what"]: link for link in links}


@pytest.fixture
def story(context: Context, publisher: Publisher, as_role: As, world: World) -> Story:
    body = publisher.request("1.0.0", records={"training": [TRAINING], "data-set": [DATA_SET]})
    sha256 = body["release"]["sha256"]
    body["decision"] = sign(
        decision(sha256, data_set=digest_of(DATA_SET), lineage=LINEAGE, decided="2026-03-01"), publisher.key
    )
    assert as_role("operator").post("/api/v1/releases", json=body).status_code == 201
    return Story(context, as_role("viewer"), world.device("XYZ-001"), sha256)


def test_the_whole_chain(story: Story) -> None:
    story.draw()
    links = story.ask()
    assert story.order == ["mask", "run", "release", "bundle", "decision", "training", "data set", "project"]
    assert story.complete
    mask, run = links["mask"], links["run"]
    assert (mask["digest"], mask["facts"]["well"], mask["facts"]["count"]) == (digest("mask", 1), "A1", 42)
    assert (run["digest"], run["facts"]) == (RUN, {"variant": "onnxruntime/fp32", "engine": "onnxruntime 1.23.2"})
    assert links["release"]["facts"]["published_by"] == "operator"
    assert "override" not in links["release"]["facts"]
    assert (links["bundle"]["digest"], links["bundle"]["facts"]["version"]) == (story.bundle, "1.0.0")
    facts = links["decision"]["facts"]
    assert (facts["verdict"], facts["approver"], facts["signature"]) == ("passed", "Dr Lin Mei-hua", "good")
    assert links["training"]["facts"]["epochs"] == 9
    assert links["data set"]["facts"] == {"entries": 3, "splits": {"train": 2, "test": 1}}
    assert links["project"]["facts"]["commit"] == "c0ffee"


def test_by_id_and_by_run(story: Story) -> None:
    story.draw()
    assert story.ask(f"{story.device.device_id}/p1/A1_0001")["run"]["digest"] == RUN
    links = story.ask(f"run/{RUN}")
    assert story.order[0] == "run"
    assert links["release"]["facts"]["name"] == "cells 1.0.0"


def test_the_mask_that_counts_is_told_and_why_it_was_drawn_anew(story: Story) -> None:
    story.draw()
    story.draw(pin=2)
    facts = story.ask()["mask"]["facts"]
    assert (facts["pin"], facts["pinned_anew"]) == (2, ["too slow"])


def test_the_mask_that_counts_is_the_one_of_the_highest_pin_whatever_came_last(story: Story) -> None:
    story.draw(pin=2)
    story.draw(pin=1)
    mask = story.ask()["mask"]
    assert (mask["digest"], mask["facts"]["pin"]) == (digest("mask", 2), 2)


def test_a_bundle_that_was_never_published(story: Story) -> None:
    story.draw("A1_0002", bundle=digest("other"))
    links = story.ask("XYZ-001/p1/A1_0002")
    assert not story.complete
    assert links["release"]["problem"] == "this server never published this bundle"
    assert links["training"]["problem"]


def test_an_override_is_shown(context: Context, publisher: Publisher, as_role: As, world: World) -> None:
    override = {"reason": "the lab in Leiden needs it today"}
    body = publisher.request("1.0.0", verdict="", override=override, card={"lineage": LINEAGE})
    assert as_role("approver").post("/api/v1/releases", json=body).status_code == 201
    story = Story(context, as_role("viewer"), world.device("XYZ-001"), body["release"]["sha256"])
    story.draw()
    links = story.ask()
    assert "approver, " in links["release"]["facts"]["override"]
    assert "the lab in Leiden needs it today" in links["release"]["facts"]["override"]
    assert links["decision"]["problem"] == "it was released without a decision record"
    assert links["bundle"]["facts"]["origin_according_to"] == "its publisher, unsigned"
    assert links["training"]["digest"] == LINEAGE["training_run"]
    assert links["training"]["problem"].startswith("no training record")


def test_a_release_alone_has_the_links_from_its_bundle_on(context: Context, story: Story) -> None:
    story.draw()
    of_mask = story.ask()

    def of_release() -> dict[str, dict[str, Any]]:
        with context.reading() as db:
            chain = lineage.of_release(db, context, db.query(Release).one())
            return {x["what"]: x for x in chain.as_json()["links"]}

    found = of_release()
    assert list(found) == ["bundle", "decision", "training", "data set", "project"]
    for what in ("bundle", "training", "data set", "project"):
        assert found[what] == of_mask[what], "one rule says where a bundle comes from"
    assert found["bundle"]["facts"]["origin_according_to"] == "the signed decision record"
    assert found["decision"]["facts"]["signature"] == "good"
    context.path("keys/decision.pem.pub").unlink()
    assert "no public key" in of_release()["decision"]["problem"]


def change(context: Context, kind: str, **fields: Any) -> None:
    with context.sessions() as db:
        content = db.query(LineageRecord).filter_by(kind=kind).one().content
        db.execute(update(LineageRecord).where(LineageRecord.kind == kind).values(content={**content, **fields}))


def test_a_training_record_that_was_changed_in_the_database(context: Context, story: Story) -> None:
    story.draw()
    change(context, "training", epochs=900)
    links = story.ask()
    assert not story.complete
    assert "was changed" in links["training"]["problem"]


def test_a_decision_record_that_was_changed_in_the_database(context: Context, story: Story) -> None:
    story.draw()
    change(context, "decision", signatures=[])
    links = story.ask()
    assert not story.complete
    assert links["decision"]["problem"] == "the stored decision record was removed or changed"
    assert links["training"]["problem"] == "unknown without the bundle"


def test_a_key_that_is_trusted_no_more(context: Context, story: Story) -> None:
    story.draw()
    context.path("keys/decision.pem.pub").unlink()
    links = story.ask()
    assert "no public key" in links["decision"]["problem"]
    assert links["bundle"]["facts"].get("origin_according_to") is None, "nobody vouches for where it comes from"
