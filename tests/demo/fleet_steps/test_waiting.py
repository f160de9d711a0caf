"""Waiting with a line for every change."""

from __future__ import annotations

from typing import Any

import pytest

from cellfleet.demo.fleet_steps.waiting import NotInTime, deployment_line, wait_for
from cellfleet.errors import DeviceError, NetworkError
from support_waiting import PATIENCE_S


def test_waiting_prints_every_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    seen = iter([(False, "one"), (False, "one"), (False, "two"), (True, "three")])
    wait_for("it", lambda: next(seen), lambda: None, PATIENCE_S)
    lines = [line.split("s  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["one", "two", "three"]


def test_waiting_prints_the_last_change_however_seldom_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    seen = iter([(False, "1 of 3"), (False, "2 of 3"), (True, "3 of 3")])
    wait_for("it", lambda: next(seen), lambda: None, PATIENCE_S, every_s=PATIENCE_S)
    assert [line.split("s  ")[1] for line in capsys.readouterr().out.splitlines()] == ["1 of 3", "3 of 3"]


def test_waiting_outlives_a_broken_network_and_ends_with_a_dead_program_or_its_patience() -> None:
    tries = iter([NetworkError("no connection"), None])

    def check() -> tuple[bool, str]:
        problem = next(tries)
        if problem is not None:
            raise problem
        return True, "there"

    wait_for("it", check, lambda: None, PATIENCE_S)

    def dead() -> None:
        raise DeviceError("XYZ-001 ended with exit code -9")

    with pytest.raises(DeviceError, match="exit code -9"):
        wait_for("it", lambda: (False, ""), dead, PATIENCE_S)
    with pytest.raises(NotInTime, match=r"it: not after 0 s; last state: so far"):
        wait_for("it", lambda: (False, "so far"), lambda: None, 0.0)


def test_a_deployment_in_one_line() -> None:
    members: list[dict[str, Any]] = [
        {"name": "B", "state": "waiting", "update": None},
        {"name": "A", "state": "updating", "update": {"state": "probation"}},
    ]
    line = deployment_line({"state": "running", "phase": 1, "phases": 2}, members)
    assert line == "running, phase 1 of 2: A probation, B waiting"
