"""Negotiation: what an older reader does not know is left out at every depth, and every feature names a field."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import Field

import cellfleet.wire
from cellfleet.errors import WireError
from cellfleet.wire import Message, parse
from cellfleet.wire.features import (
    ANNOUNCEMENT,
    FEATURES,
    HEADER,
    NONE,
    NOT_FIELDS,
    Peer,
    Since,
    features_of,
    read_announcement,
    too_new,
    used_features,
)
from cellfleet.wire.telemetry_events import Incident
from cellfleet.wire.telemetry_otlp import decode_events, encode_events
from support_features import FEATURE, NewerIncident

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BOTH = frozenset({"one", "two"})


class Part(Message):
    """A part as of protocol 1."""

    name: str


class NewerPart(Part):
    """The same with two newer fields."""

    colour: Annotated[str | None, Since("one")] = None
    size: Annotated[int, Since("two")] = 0


class Whole(Message):
    """A message as of protocol 1."""

    part: Part | None = None
    listed: tuple[Part, ...] = ()
    named: Mapping[str, Part] = Field(default={})
    text: str = ""


class NewerWhole(Whole):
    """The same with newer parts."""

    part: NewerPart | None = None
    listed: tuple[NewerPart, ...] = ()
    named: Mapping[str, NewerPart] = Field(default={})
    extra: Annotated[NewerPart | None, Since("two")] = None


PART = NewerPart(name="p", colour="red", size=3)
WHOLE = NewerWhole(part=PART, listed=(PART, NewerPart(name="q")), named={"k": PART}, extra=PART, text="t")


def test_a_reader_that_announced_nothing_understands_the_message() -> None:
    read = parse(Whole, WHOLE.to_json(NONE))
    old = Part(name="p")
    assert read == Whole(part=old, listed=(old, Part(name="q")), named={"k": old}, text="t")
    with pytest.raises(WireError, match="Extra inputs"):
        parse(Whole, WHOLE.to_json())


@pytest.mark.parametrize(
    ("features", "part"),
    [({"one"}, {"name": "p", "colour": "red"}), ({"two"}, {"name": "p", "size": 3}), ({"three"}, {"name": "p"})],
)
def test_a_reader_gets_the_features_that_it_announced(features: set[str], part: dict[str, object]) -> None:
    data = WHOLE.to_data(frozenset(features))
    assert data["part"] == data["listed"][0] == data["named"]["k"] == part
    assert data.get("extra") == (part if "two" in features else None)
    assert ("extra" in data) == ("two" in features)


def test_own_files_and_equal_readers_get_the_whole_message() -> None:
    assert parse(NewerWhole, WHOLE.to_json()) == WHOLE == parse(NewerWhole, WHOLE.to_json(BOTH | {"three"}))
    assert too_new(WHOLE, BOTH) is None


def test_features_are_found_within_unions_lists_and_recursion() -> None:
    assert features_of(NewerWhole) == BOTH
    assert features_of(Whole) == NONE
    assert features_of(Tree) == {"one"}
    assert used_features(NewerWhole, frozenset({"two", "other"})) == {"two"}
    assert Tree(leaves=(Tree(note="x"),)).to_data(NONE) == {"leaves": [{"leaves": []}]}


class Tree(Message):
    """A message that holds itself."""

    leaves: tuple[Tree, ...] = ()
    note: Annotated[str, Since("one")] = ""


def test_an_event_is_encoded_for_its_reader() -> None:
    event = NewerIncident(at=NOW, kind="crash", text="x", detail="y")
    old = decode_events(encode_events({}, [event], NOW, NONE))
    assert old.events == (Incident(at=NOW, kind="crash", text="x"),)
    assert old.bad == ()
    assert decode_events(encode_events({}, [event], NOW)).bad != (), "an older reader rejects the whole event"
    new = ExportLogsServiceRequest.FromString(encode_events({}, [event], NOW, frozenset({FEATURE})))
    assert "detail" in [a.key for a in new.resource_logs[0].scope_logs[0].log_records[0].attributes]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("", []),
        ("reasons", ["reasons"]),
        (" a , b-2,a", ["a", "b-2"]),
        ("A,é,1a,-a,a b," + "x" * 33, []),
        (",".join(f"f{i}" for i in range(100)), sorted(f"f{i}" for i in range(64))),
    ],
)
def test_an_announcement_is_read_with_distrust(header: str, names: list[str]) -> None:
    assert sorted(read_announcement(header)) == names


def test_the_latest_answer_of_the_server_counts() -> None:
    peer, header = Peer(), HEADER.lower()
    assert peer.features == NONE
    peer.note(403, {header: "one,two"})
    assert peer.features == BOTH
    peer.note(502, {})
    assert peer.features == BOTH, "an error of a proxy says nothing of the server"
    peer.note(503, {header: "one"})
    assert peer.features == {"one"}
    peer.note(200, {})
    assert peer.features == NONE, "an older server answers"


def test_every_feature_names_a_field_and_every_field_a_feature() -> None:
    found = NONE.union(*(features_of(kind) for kind in messages()))
    assert found == FEATURES - NOT_FIELDS
    assert read_announcement(ANNOUNCEMENT[HEADER]) == FEATURES


def test_the_features_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/fleet.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"^- Features of this version: (.*)", page, re.MULTILINE)
    assert set(re.findall(r"`([a-z0-9-]+)`", named)) == FEATURES


def test_newer_fields_have_defaults() -> None:
    without = [
        f"{kind.__name__}.{name}"
        for kind in messages()
        for name, field in kind.model_fields.items()
        if any(isinstance(m, Since) for m in field.metadata) and field.is_required()
    ]
    assert without == []


def messages() -> Iterator[type[Message]]:
    for module in pkgutil.iter_modules(cellfleet.wire.__path__, "cellfleet.wire."):
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, type) and issubclass(found, Message):
                yield found
