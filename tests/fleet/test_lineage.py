"""What stands behind a mask, as the server tells it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from cellfleet.fleet import lineage
from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import LineageRecord, Release
from support_fleet import World
from support_fleet_lineage import LINEAGE, RUN, As, Story
from support_rollout import Publisher, digest


def test_the_whole_chain(story: Story) -> None:
    story.segment()
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
    story.segment()
    assert story.ask(f"{story.device.device_id}/p1/A1_0001")["run"]["digest"] == RUN
    links = story.ask(f"run/{RUN}")
    assert story.order[0] == "run"
    assert links["release"]["facts"]["name"] == "cells 1.0.0"


def test_the_mask_that_counts_is_told_and_why_it_was_drawn_anew(story: Story) -> None:
    story.segment()
    story.segment(pin=2)
    facts = story.ask()["mask"]["facts"]
    assert (facts["pin"], facts["pinned_anew"]) == (2, ["too slow"])


def test_the_mask_that_counts_is_the_one_of_the_highest_pin_whatever_came_last(story: Story) -> None:
    story.segment(pin=2)
    story.segment(pin=1)
    mask = story.ask()["mask"]
    assert (mask["digest"], mask["facts"]["pin"]) == (digest("mask", 2), 2)


def test_a_bundle_that_was_never_published(story: Story) -> None:
    story.segment("A1_0002", bundle=digest("other"))
    links = story.ask("XYZ-001/p1/A1_0002")
    assert not story.complete
    assert links["release"]["problem"] == "this server never published this bundle"
    assert links["training"]["problem"]


def test_an_override_is_shown(context: Context, publisher: Publisher, as_role: As, world: World) -> None:
    override = {"reason": "the lab in Leiden needs it today"}
    body = publisher.request("1.0.0", verdict="", override=override, card={"lineage": LINEAGE})
    assert as_role("approver").post("/api/v1/releases", json=body).status_code == 201
    story = Story(context, as_role("viewer"), world.device("XYZ-001"), body["release"]["sha256"])
    story.segment()
    links = story.ask()
    assert "approver, " in links["release"]["facts"]["override"]
    assert "the lab in Leiden needs it today" in links["release"]["facts"]["override"]
    assert links["decision"]["problem"] == "it was released without a decision record"
    assert links["bundle"]["facts"]["origin_according_to"] == "its publisher, unsigned"
    assert links["training"]["digest"] == LINEAGE["training_run"]
    assert links["training"]["problem"].startswith("no training record")


def test_a_release_alone_has_the_links_from_its_bundle_on(context: Context, story: Story) -> None:
    story.segment()
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
    story.segment()
    change(context, "training", epochs=900)
    links = story.ask()
    assert not story.complete
    assert "was changed" in links["training"]["problem"]


def test_a_decision_record_that_was_changed_in_the_database(context: Context, story: Story) -> None:
    story.segment()
    change(context, "decision", signatures=[])
    links = story.ask()
    assert not story.complete
    assert links["decision"]["problem"] == "the stored decision record was removed or changed"
    assert links["training"]["problem"] == "unknown without the bundle"


def test_a_key_that_is_trusted_no_more(context: Context, story: Story) -> None:
    story.segment()
    context.path("keys/decision.pem.pub").unlink()
    links = story.ask()
    assert "no public key" in links["decision"]["problem"]
    assert links["bundle"]["facts"].get("origin_according_to") is None, "nobody vouches for where it comes from"
