"""Waiting for what must happen, with a line for every change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cellfleet.cli.common import say
from cellfleet.errors import FleetError, NetworkError

_TICK_S = 0.4


class NotInTime(FleetError):
    """What was waited for did not happen."""


def wait_for(
    what: str,
    look: Callable[[], tuple[bool, str]],
    check: Callable[[], None],
    patience_s: float,
    every_s: float = 0.0,
) -> float:
    """Look until it is so; a line for every change of what is seen.

    Args:
        what: in words, for the error.
        look: whether it is so, and how things stand.
        check: raises when it cannot become so any more (a program has ended).
        patience_s: how long to wait.
        every_s: between two lines at least, but for the last one.

    Returns:
        Seconds that it took.

    Raises:
        NotInTime: it did not happen in time.
    """
    begun, last, told_s, done = time.monotonic(), "", -every_s, False
    while not done:
        check()
        try:
            done, now = look()
        except NetworkError as e:
            done, now = False, e.message
        waited = time.monotonic() - begun
        if now and now != last and (done or waited - told_s >= every_s):
            say(f"  {waited:5.1f} s  {now}")
            last, told_s = now, waited
        if not done and waited > patience_s:
            raise NotInTime(
                f"{what}: not after {waited:.0f} s; the last that was seen: {last or 'nothing'}",
                hint="end other programs that keep this machine busy, or let frames come more slowly: "
                "--set camera.interval_s=2",
            )
        if not done:
            time.sleep(_TICK_S)
    return time.monotonic() - begun


def deployment_line(deployment: Mapping[str, Any], members: list[dict[str, Any]]) -> str:
    """How a deployment stands, in one line."""
    words = []
    for m in sorted(members, key=lambda m: str(m["name"])):
        state = m["state"]
        if state in ("updating", "offered", "deferred"):
            state = (m.get("update") or {}).get("state") or state
        words.append(f"{m['name']} {state}")
    return f"{deployment['state']}, phase {deployment['phase']} of {deployment['phases']}: {', '.join(words)}"
