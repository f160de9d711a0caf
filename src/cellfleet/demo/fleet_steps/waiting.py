"""Wait until a condition holds; print a line for every change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cellfleet.cli.common import say
from cellfleet.errors import FleetError, NetworkError

_TICK_S = 0.4


class NotInTime(FleetError):
    """The condition was not met in time."""


def wait_for(
    what: str,
    check: Callable[[], tuple[bool, str]],
    check_alive: Callable[[], None],
    timeout_s: float,
    every_s: float = 0.0,
) -> float:
    """Check until a condition holds; print a line for every change.

    Args:
        what: description for the error.
        check: returns whether the condition holds, and a description of the state.
        check_alive: raises if the condition can no longer be met (a program has ended).
        timeout_s: limit of the wait, seconds.
        every_s: minimum time between two lines, seconds, except for the last line.

    Returns:
        Seconds waited.

    Raises:
        NotInTime: the condition was not met in time.
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
                hint="end other programs on this machine, or take frames more slowly: --set camera.interval_s=2",
            )
        if not done:
            time.sleep(_TICK_S)
    return time.monotonic() - begun


def deployment_line(deployment: Mapping[str, Any], members: list[dict[str, Any]]) -> str:
    """Describe a deployment in one line.

    Args:
        deployment: deployment from the API.
        members: its members from the API.

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
