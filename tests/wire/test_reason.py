"""Reasons: text from data, distrust of data from outside, texts of earlier versions, files of earlier versions."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from cellfleet.errors import WireError
from cellfleet.wire.base import Message, parse, parse_data
from cellfleet.wire.features import NONE
from cellfleet.wire.reason import (
    MAX_DEPTH,
    Reason,
    StoredReason,
    because,
    english,
    joined,
    read_reason,
    read_reasons,
    render,
    text_reason,
)
from cellfleet.wire.telemetry_events import Incident, parse_event
from cellfleet.wire.telemetry_otlp import decode_events, encode_events

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
MEMORY = because("probation.memory", memory_mb=1446.4, limit_mb=800)
TIME = because("probation.time", ms=90.0, limit_ms=40)
MEMORY_TEXT = "the segmenter uses 1446 MB; the limit is 800 MB"


def nested(levels: int) -> Reason:
    reason = MEMORY
    for _ in range(levels - 1):
        reason = because("several", reason)
    return reason


def test_the_text_is_made_of_the_data() -> None:
    assert english(MEMORY) == MEMORY_TEXT
    assert english(because("several", MEMORY, TIME)) == f"{MEMORY_TEXT}; a frame takes 90 ms; the limit is 40 ms"
    assert render(because("several", MEMORY, MEMORY), lambda t: t.replace("the", "a"), "/").count("/") == 1
    assert english(None) == ""
    assert joined([]) is None
    assert joined([MEMORY]) is MEMORY
    assert joined([MEMORY, TIME]) == because("several", MEMORY, TIME)


def test_numbers_that_are_none_and_texts_of_other_programs() -> None:
    wild = because("selftest.ap50", ap50=float("nan"), limit=float("inf"))
    assert english(wild) == "AP@0.5 is nan on its golden frames; the limit is inf"
    assert parse(Reason, wild.to_json()) == wild
    assert english(text_reason("a\0b\ud800" + "c" * 3000)) == "a b?" + "c" * 1996
    assert english(text_reason("{code} {0} {__class__}")) == "{code} {0} {__class__}"


def test_a_reason_that_is_nested_too_deep_becomes_a_text() -> None:
    deep = nested(MAX_DEPTH + 3)
    assert deep.depth <= MAX_DEPTH
    assert nested(MAX_DEPTH).depth == MAX_DEPTH
    assert english(deep) == MEMORY_TEXT
    many = because("several", *[MEMORY] * 99)
    assert len(many.parts) == 16


def test_telemetry_carries_the_deepest_reason_and_leaves_data_out_for_older_servers() -> None:
    event = Incident(at=NOW, kind="crash", text=MEMORY_TEXT, reason_data=nested(MAX_DEPTH))
    (whole,) = decode_events(encode_events({}, [event], NOW, frozenset({"reasons"}))).events
    assert whole == event
    (old,) = decode_events(encode_events({}, [event], NOW, NONE)).events
    assert old == Incident(at=NOW, kind="crash", text=MEMORY_TEXT)
    assert b"reason_data" not in event.to_json(NONE)


@pytest.mark.parametrize(
    "data",
    [
        {"code": "probation.memory", "values": {"memory_mb": [1]}},
        {"code": "probation.memory", "values": {"memory_mb": {"a": 1}}},
        {"code": "probation.memory", "values": {"__class__": 1}},
        {"code": "probation.memory", "values": {"x": "a\0b"}},
        {"code": "Probation Memory"},
        {"code": ""},
        {"code": "text", "values": {"text": "x"}, "surprise": 1},
        {"code": "several", "parts": [{"code": "text", "values": {"text": "x"}}] * 17},
        json.loads("".join(['{"code": "several", "parts": ['] * 9) + "".join(["]}"] * 9)),
    ],
)
def test_data_from_outside_is_read_with_distrust(data: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        parse_data(Reason, data)
    assert read_reason("as it says", data) == text_reason("as it says")
    event = {"event": "incident", "at": NOW.isoformat(), "kind": "k", "text": "t", "reason_data": data}
    with pytest.raises(WireError):
        parse_event(event)


@pytest.mark.parametrize(
    "data",
    [
        None,
        Reason(code="of-a-newer.version", values={"n": 1}),
        because("several", Reason(code="of-a-newer.version")),
        Reason(code="probation.memory", values={"memory_mb": 1.0}),
    ],
)
def test_what_this_version_does_not_know_is_its_text(data: Reason | None) -> None:
    assert read_reason("as it says", data) == text_reason("as it says")
    assert read_reason("", data) is None
    assert read_reasons(["one", "two"], [data, MEMORY]) == (text_reason("one"), MEMORY)
    assert read_reasons(["one", "two"], [MEMORY]) == (text_reason("one"), text_reason("two"))
    if data is not None:
        assert re.match(data.code, english(data))


class Page(Message):
    """A small file of an instrument."""

    reason: StoredReason = None


@pytest.mark.parametrize("reason", [None, MEMORY, text_reason("{a person} wrote it"), because("several", MEMORY, TIME)])
def test_small_files_hold_reasons_or_the_text_of_an_earlier_version(reason: Reason | None) -> None:
    assert parse(Page, Page(reason=reason).to_json()).reason == reason
    assert parse_data(Page, Page(reason=reason).model_dump(mode="json")).reason == reason
    assert parse(Page, b'{"reason": ""}').reason is None
    assert parse(Page, b"{}").reason is None
    old = parse(Page, b'{"reason": "it uses 900 MB, 800 MB are allowed"}')
    assert old.reason == text_reason("it uses 900 MB, 800 MB are allowed")
    assert old.to_json() == b'{"reason":"it uses 900 MB, 800 MB are allowed"}'
