"""Every pair of state and event of the table; what each makes of the journal; the drawing is current."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.device.system.retry import Backoff
from cellfleet.device.update.journal import Entry, Update
from cellfleet.device.update.policy import MAX_ATTEMPTS
from cellfleet.device.update.state_machine import (
    ACTION_TEXTS,
    BEFORE_ACTIVATION,
    EVENTS,
    STATES,
    TABLE,
    Event,
    next_state,
)
from cellfleet.device.update.transitions import ActionResult, advance
from cellfleet.wire.reason import text_reason
from cellfleet.wire.states import ReleaseRef, UpdateState

DOCS = Path(__file__).resolve().parents[3] / "docs"
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
RELEASE = ReleaseRef(
    release_id=3,
    name="cells",
    version="1.2.0",
    counter=3,
    target_path="models/cells/1.2.0/abc.bundle.zip",
    sha256="a" * 64,
    length=10,
)
PATIENCE = Backoff(5.0, 0.5)
PAIRS: list[tuple[UpdateState, Event]] = [(s, e) for s in STATES for e in EVENTS]


def update(**fields: object) -> Update:
    base = Update(generation=1, deployment_id=7, release=RELEASE, started_at=NOW, changed_at=NOW)
    return base.model_copy(update=fields)


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_agent_svg", DOCS / "make_agent_svg.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(STATES) == set(ACTION_TEXTS)
    assert {e for moves in TABLE.values() for e in moves} == set(EVENTS)
    assert {t for moves in TABLE.values() for t in moves.values()} == set(STATES)
    for state in BEFORE_ACTIVATION:
        assert TABLE[state]["withdrawn"] == "idle"


@pytest.mark.parametrize("state", STATES)
def test_every_state_leads_back_to_idle(state: UpdateState) -> None:
    reached, frontier = {state}, [state]
    while frontier:
        for target in TABLE[frontier.pop()].values():
            if target not in reached:
                reached.add(target)
                frontier.append(target)
    assert "idle" in reached


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair(state: UpdateState, event: Event) -> None:
    entry = Entry(state=state, entered_at=NOW, update=update())
    done = ActionResult(event, text_reason("because"), {"n": 1})
    later = NOW + timedelta(seconds=9)
    if event not in TABLE[state]:
        with pytest.raises(KeyError):
            advance(entry, update(), done, later, PATIENCE)
        return
    page = advance(entry, update(), done, later, PATIENCE)
    assert (page.state, page.source, page.trigger) == (next_state(state, event), state, event)
    assert page.entered_at == later
    if event == "withdrawn":
        assert page.update is None
        return
    assert page.update is not None
    assert page.update.changed_at == later
    ends = {"refused": "refused", "committed": "succeeded", "rolled-back": "rolled-back"}
    assert page.update.outcome == ends.get(event, "running")
    assert page.update.settled == (event in ends)
    if event not in ("committed", "rolled-back"):
        assert page.update.reason == text_reason("because")
    assert page.update.numbers == {"n": 1}


def test_activation_is_measured_from_the_arrival() -> None:
    at = NOW + timedelta(seconds=42)
    page = advance(
        Entry(state="activating"), update(), ActionResult("activated", changes={"activated_at": at}), at, PATIENCE
    )
    assert page.update is not None
    assert (page.update.update_s, page.update.activated_at) == (42.0, at)


def test_failures_are_counted_to_the_last_one() -> None:
    current = update()
    waits = []
    for _ in range(MAX_ATTEMPTS):
        page = advance(
            Entry(state="downloading"),
            current,
            ActionResult("failed", text_reason("broke"), temporary=True),
            NOW,
            PATIENCE,
        )
        assert page.update is not None
        current = page.update
        if current.not_before is not None:
            waits.append((current.not_before - NOW).total_seconds())
    assert waits == sorted(waits)
    assert waits[0] == 5.0
    assert (current.outcome, current.settled, current.attempts) == ("failed", True, MAX_ATTEMPTS)


@given(st.integers(1, 200))
def test_a_server_that_is_away_is_never_a_failure(times: int) -> None:
    current = update()
    for _ in range(times):
        page = advance(
            Entry(state="checking"), current, ActionResult("failed", text_reason("away"), temporary=True), NOW, PATIENCE
        )
        assert page.update is not None
        current = page.update
    assert (current.outcome, current.settled, current.attempts, current.waits) == ("running", False, 0, times)
    assert current.not_before is not None
    assert (current.not_before - NOW).total_seconds() <= 500.0


def test_the_drawing_is_current() -> None:
    module = drawing()
    text = module.svg()
    assert (DOCS / "agent.svg").read_text(encoding="utf-8") == text, "run python docs/make_agent_svg.py"
    for state in STATES:
        assert f'class="name">{state}</text>' in text
    for event in EVENTS:
        assert event in text


def test_the_page_s_table_is_the_program_s() -> None:
    """Each row of docs/fleet.md, "The agent's table", is a move, and each move has a row."""
    text = (DOCS / "fleet.md").read_text(encoding="utf-8").partition("## The agent's table")[2].partition("\n## ")[0]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    found: set[tuple[str, str, str]] = set()
    for states, event, target, *_ in rows[2:]:
        names = BEFORE_ACTIVATION if states.startswith("any but idle") else states.split(", ")
        found |= {(name, event, target) for name in names}
    assert found == {(s, e, t) for s, moves in TABLE.items() for e, t in moves.items()}
