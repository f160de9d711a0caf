"""Messages: what is accepted, what is refused with the field's name, and that JSON brings back the same message."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.errors import WireError
from cellfleet.wire import parse, parse_data
from cellfleet.wire.base import is_key
from cellfleet.wire.enrol import DeviceFacts, TokenRequest
from cellfleet.wire.rollout import DeploymentRequest, Phase
from cellfleet.wire.states import Counters, Health, MaintenanceWindow, ReleaseRef, ReportedState
from cellfleet.wire.telemetry_events import FrameTaken, parse_event

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FACTS = DeviceFacts(cellfleet_version="0.2.0", platform="Linux x86_64")
RELEASE: dict[str, Any] = {
    "release_id": 1,
    "name": "cells",
    "version": "1.2.3",
    "counter": 4,
    "target_path": "models/cells/1.2.3/0123456789ab.bundle.zip",
    "sha256": "a" * 64,
    "length": 10,
}


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.floats(0, 1e9))
def test_a_reported_state_comes_back_the_same(taken: int, sequence: int, free: float) -> None:
    state = ReportedState(
        device_id="dev-0123456789ab",
        sequence=sequence,
        boot_id="boot-1",
        at=NOW,
        generation=0,
        state="idle",
        counters=Counters(taken=taken),
        health=Health(disk_free_mb=free, problems=("the disk is nearly full",)),
        facts=FACTS,
    )
    assert parse(ReportedState, state.to_json()) == state


def test_the_counter_of_skipped_frames_is_taken_and_not_sent() -> None:
    """Agents of earlier versions send it, always 0; servers of earlier versions do without it."""
    counters = parse_data(Counters, {"taken": 3, "stored": 3, "segmented": 2, "failed": 1, "skipped": 0})
    assert json.loads(counters.to_json()) == {"taken": 3, "stored": 3, "segmented": 2, "failed": 1}


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("surprise", 1, "surprise"),
        ("sha256", "A" * 64, "sha256"),
        ("counter", 0, "counter"),
        ("target_path", "models/../../etc/passwd", "target_path"),
        ("target_path", "/models/cells/1.zip", "target_path"),
        ("name", "../cells", "name"),
        ("version", "1.2", "version"),
        ("length", 0, "length"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, word: str) -> None:
    assert parse_data(ReleaseRef, RELEASE).counter == 4
    with pytest.raises(WireError, match=word) as e:
        parse_data(ReleaseRef, {**RELEASE, field: value})
    assert e.value.hint


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"protocol": 2}', b"\xff"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        parse(ReportedState, data)


def test_a_time_without_a_zone_is_refused() -> None:
    facts = {"device_id": "dev-0123456789ab", "nonce": "n" * 16, "signature": "s" * 16}
    assert (
        parse_data(TokenRequest, {**facts, "issued_at": NOW.astimezone(timezone(timedelta(hours=8)))}).issued_at == NOW
    )
    with pytest.raises(WireError, match="issued_at"):
        parse_data(TokenRequest, {**facts, "issued_at": "2026-03-01T12:00:00"})


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "", ".hidden", "a" * 129, "x\n", "ü", "a b", "\u0661"])
def test_a_key_is_safe_as_a_file_name(name: str) -> None:
    assert not is_key(name)
    with pytest.raises(WireError):
        parse_event(_taken(experiment=name))


@given(st.text(max_size=40))
def test_the_two_definitions_of_a_key_agree(name: str) -> None:
    try:
        parse_event(_taken(experiment=name))
    except WireError:
        assert not is_key(name)
    else:
        assert is_key(name)


def test_an_event_of_no_known_kind_is_refused() -> None:
    assert isinstance(parse_event(_taken()), FrameTaken)
    with pytest.raises(WireError, match="event"):
        parse_event(_taken(event="teleported"))


def test_a_phase_has_a_count_or_a_percent_and_not_both() -> None:
    assert Phase(count=1).count == 1
    for wrong in ({}, {"count": 1, "percent": 10.0}, {"percent": 0.0}, {"count": 0}):
        with pytest.raises(WireError):
            parse_data(Phase, wrong)
    assert DeploymentRequest(release_id=1, group="lab").phases == (Phase(percent=100),)


@pytest.mark.parametrize("wrong", [{"start": "24:00"}, {"end": "7:00"}, {"days": ()}, {"days": (7,)}])
def test_a_window_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        parse_data(MaintenanceWindow, wrong)


def _taken(**changes: Any) -> dict[str, Any]:
    facts = {
        "event": "taken",
        "experiment": "run-1",
        "frame": "f000001",
        "index": 0,
        "well": "A1",
        "time_s": 0.0,
        "taken_at": NOW.isoformat(),
        "sha256": "b" * 64,
        "bytes": 3,
    }
    return facts | changes
