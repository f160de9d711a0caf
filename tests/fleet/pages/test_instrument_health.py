"""How an instrument is, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cellfleet.fleet.pages.formatting import reason_text
from cellfleet.fleet.pages.i18n import Translator
from cellfleet.fleet.pages.instrument_health import condition
from cellfleet.wire.reason import Reason, because, text_reason

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
FINE: dict[str, Any] = {
    "active": {"name": "m"},
    "health": {"camera": "running", "segmenter": "running", "problems": []},
}


def judged(
    reported: dict[str, Any],
    *,
    alarms: dict[str, Reason] | None = None,
    seen_s: float | None = 3,
    state: str = "accepted",
) -> Any:
    seen = None if seen_s is None else NOW - timedelta(seconds=seen_s)
    return condition(state, reported, alarms or {}, seen, NOW, 300)


@pytest.mark.parametrize(
    ("changes", "word", "reason"),
    [
        ({}, "well", ""),
        ({"health": {"problems": ["the disk is full"]}}, "unwell", "the disk is full"),
        (
            {
                "health": {
                    "problems": ["English of a newer agent", "its disk"],
                    "problems_data": [
                        {"code": "of-a-newer.agent"},
                        because("camera.disk-full", free_mb=1, limit_mb=2).model_dump(),
                    ],
                }
            },
            "unwell",
            "English of a newer agent; the disk is nearly full: 1 MB free; the limit is 2 MB",
        ),
        ({"health": {"camera": "failing"}}, "unwell", "the camera fails"),
        ({"health": {"segmenter": "failing"}}, "unwell", "the segmenter fails"),
        ({"health": {"camera": "waiting"}}, "warning", "the camera waits"),
        ({"health": {"camera": "held"}}, "warning", "an operator holds the camera"),
        ({"health": {"clock_offset_s": -90.0}}, "warning", "its clock is 90 s off"),
        (
            {"update": {"outcome": "rolled-back", "reason": "too slow"}},
            "warning",
            "it rolled its last update back; too slow",
        ),
        ({"update": {"outcome": "succeeded", "reason": ""}}, "well", ""),
        ({"active": None}, "warning", "no model is installed"),
    ],
)
def test_reasons(changes: dict[str, Any], word: str, reason: str) -> None:
    found = judged({**FINE, **changes})
    assert found.code == word
    assert "; ".join(reason_text(r, Translator()) for r in found.reasons) == reason
    assert found.needs_eyes == (word != "well")


def test_silence_is_judged_by_the_servers_clock() -> None:
    assert judged(FINE, seen_s=300).code == "well"
    found = judged(FINE, seen_s=301)
    assert found.code == "silent"
    assert reason_text(found.reasons[0], Translator("zh-TW")) == "自 2026-03-02 08:54 UTC 起沒有回報"
    assert judged({}, seen_s=None).code == "silent"


def test_what_is_wrong_comes_before_silence() -> None:
    found = judged(FINE, alarms={"two-machines": text_reason("two machines use one key")}, seen_s=4000)
    assert found.code == "unwell"
    assert found.reasons[0] == text_reason("two machines use one key")
    assert len(found.reasons) == 2


@pytest.mark.parametrize("state", ["pending", "rejected", "revoked"])
def test_who_is_no_member_is_not_judged(state: str) -> None:
    assert judged({}, seen_s=None, state=state).code == state
