"""The chain behind a mask, link by link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cellfleet.lineage import RecordStore, SigningKey, environment_digest, project_state, run_digest, sign, trace
from cellfleet.lineage.state import ProjectState

BUNDLE = "b" * 64


@pytest.fixture
def story(tmp_path: Path) -> dict[str, Any]:
    """A project's records: data set, training, decision; and what a mask and its bundle say of themselves."""
    store, key = RecordStore(tmp_path / "records"), SigningKey.load_or_create(tmp_path / "k.pem")
    data_set = store.put("data-set", {"format_version": 1, "entries": [{"split": "train"}, {"split": "test"}]})
    training = store.put("training", {"seed": 0, "data_set": data_set, "best_epoch": 9})
    decision = sign({"bundle": BUNDLE, "verdict": "passed", "approver": "Ada", "numbers": {"ap50": 0.7}}, key)
    store.put("decision", decision)
    store.put("decision", sign({"bundle": "c" * 64, "verdict": "failed"}, key))
    lineage = {"data_set": data_set, "training_run": training, "project_commit": None, "environment": "e" * 64}
    return {
        "mask": {"frame": "t01", "sha256": "f" * 64, "run_digest": "d" * 64},
        "bundle": {"name": "cells", "version": "1.0.0", "lineage": lineage},
        "bundle_sha256": BUNDLE,
        "variant": "onnxruntime/fp32",
        "store": store,
        "trusted": [key.public_pem],
    }


def test_every_link_is_there(story: dict[str, Any]) -> None:
    chain = trace(**story)
    assert chain.complete
    assert [x.what for x in chain.links] == ["mask", "run", "bundle", "decision", "training", "data set", "project"]
    links = {x.what: x.facts for x in chain.links}
    assert links["decision"]["approver"] == "Ada"
    assert links["data set"]["splits"] == {"train": 1, "test": 1}
    assert links["project"]["commit"] == "no git"


def test_numbers_of_the_variant_that_drew_the_mask_stand_beside_those_of_the_gate(
    story: dict[str, Any], tmp_path: Path
) -> None:
    key = SigningKey.load_or_create(tmp_path / "k.pem")
    store = RecordStore(tmp_path / "others")
    measured = {"onnxruntime/fp32": {"ap50": 0.7, "sha256": "a"}, "openvino/int8": {"ap50": 0.69, "sha256": "b"}}
    payload = {"bundle": BUNDLE, "verdict": "passed", "variant": "onnxruntime/fp32", "variants": measured}
    store.put("decision", sign(payload, key))

    def decision(variant: str) -> dict[str, Any]:
        chain = trace(**{**story, "store": store, "variant": variant})
        return dict(next(x.facts for x in chain.links if x.what == "decision"))

    assert decision("openvino/int8")["drawn_by"] == {"variant": "openvino/int8", "ap50": 0.69}
    assert decision("openvino/fp32")["drawn_by"] == {
        "variant": "openvino/fp32", "reason": "not measured for this record"
    }  # fmt: skip
    assert "drawn_by" not in decision("onnxruntime/fp32")
    assert "drawn_by" not in decision("")


def test_a_decision_by_an_untrusted_key_is_shown_as_a_problem(story: dict[str, Any], tmp_path: Path) -> None:
    stranger = SigningKey.load_or_create(tmp_path / "stranger.pem")
    chain = trace(**{**story, "trusted": [stranger.public_pem]})
    problems = {x.what: x.problem for x in chain.links if x.problem}
    assert list(problems) == ["decision"]
    assert "signature" in problems["decision"]


def test_the_latest_decision_comes_first_and_doubtful_ones_last(story: dict[str, Any], tmp_path: Path) -> None:
    key, stranger = (SigningKey.load_or_create(tmp_path / name) for name in ("k.pem", "stranger.pem"))
    store = RecordStore(tmp_path / "many")
    days = [f"2026-01-{day:02d}T00:00:00+00:00" for day in range(1, 9)]
    for day in days:
        store.put("decision", sign({"bundle": BUNDLE, "verdict": "passed", "decided": day}, key))
    store.put("decision", sign({"bundle": BUNDLE, "verdict": "passed", "decided": "2027"}, stranger))
    found = [x for x in trace(**{**story, "store": store}).links if x.what == "decision"]
    assert [x.facts["decided"] for x in found[:-1]] == days[::-1]
    assert "signature is not good" in found[-1].problem


def test_missing_links_say_why(story: dict[str, Any], tmp_path: Path) -> None:
    chain = trace(**{**story, "store": RecordStore(tmp_path / "empty"), "mask": None})
    problems = {x.what: x.problem for x in chain.links if x.problem}
    assert set(problems) == {"decision", "training", "data set"}
    assert "cellfleet evaluate" in problems["decision"]
    assert not chain.as_json()["complete"]


def test_without_the_bundle_s_file_the_rest_is_said_to_be_unknown(story: dict[str, Any]) -> None:
    chain = trace(**{**story, "bundle": None})
    assert {x.what for x in chain.links if x.problem} == {"bundle", "training", "data set", "project"}


@pytest.mark.parametrize("field", ["bundle_sha256", "variant", "engine", "engine_version", "settings"])
def test_everything_that_decides_a_mask_is_in_the_run_digest(field: str) -> None:
    facts: dict[str, Any] = {
        "bundle_sha256": BUNDLE, "variant": "v", "engine": "e", "engine_version": "1", "settings": {"tile_px": 1}
    }  # fmt: skip
    other = {**facts, field: {"tile_px": 2} if field == "settings" else "other"}
    assert run_digest(**facts) != run_digest(**other)
    assert run_digest(**facts) == run_digest(**facts)


def test_a_project_without_git_is_said_to_be_so(tmp_path: Path) -> None:
    assert project_state(tmp_path / "absent") == ProjectState(None, None)
    assert project_state(tmp_path / "absent").describe() == "no git"
    assert ProjectState("a" * 40, True).describe() == "aaaaaaaaaaaa + uncommitted changes"


def test_the_environment_has_one_digest() -> None:
    assert environment_digest() == environment_digest()
