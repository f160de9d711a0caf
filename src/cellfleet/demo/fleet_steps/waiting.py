"""Waits until something happens, with a line for every change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cellfleet.cli.common import say
from cellfleet.errors import FleetError, NetworkError

_TICK_S = 0.4


class NotInTime(FleetError):
    """What was waited for did not happen in time."""


def wait_for(
    what: str,
    check: Callable[[], tuple[bool, str]],
    check_alive: Callable[[], None],
    timeout_s: float,
    every_s: float = 0.0,
) -> float:
    """Check until a condition holds; print a line for every change.

    Args:
        what: for the error.
        check: whether the condition holds, and the state in words.
        check_alive: raises when the condition cannot hold any more (a program has ended).
        timeout_s: how long to wait.
        every_s: least time between two lines, except for the last one.

    Returns:
        Seconds that it took.

    Raises:
        NotInTime: the condition did not hold in time.
    """
    begun, last, printed_s, done = time.monotonic(), "", -every_s, False
    while not done:
        check_alive()
        try:
            done, now = check()
        except NetworkError as e:
            done, now = False, e.message
        waited = time.monotonic() - begun
        if now and now != last and (done or waited - printed_s >= every_s):
            say(f"  {waited:5.1f} s  {now}")
            last, printed_s = now, waited
        if not done and waited > timeout_s:
            raise NotInTime(
                f"{what}: not after {waited:.0f} s; last state: {last or 'unknown'}",
                hint="end other programs that keep this machine busy, or let frames come more slowly: "
                "--set camera.interval_s=2",
            )
        if not done:
            time.sleep(_TICK_S)
    return time.monotonic() - begun


def deployment_line(deployment: Mapping[str, Any], members: list[dict[str, Any]]) -> str:
    """Describe a deployment in one line.

    Args:
        deployment: as the API gives it.
        members: likewise.

    Returns:
        State, phase, and the state of each member.
    """
    words = []
    for m in sorted(members, key=lambda m: str(m["name"])):
        state = m["state"]
        if state in ("updating", "offered", "deferred"):
            state = (m.get("update") or {}).get("state") or state
        words.append(f"{m['name']} {state}")
    return f"{deployment['state']}, phase {deployment['phase']} of {deployment['phases']}: {', '.join(words)}"
