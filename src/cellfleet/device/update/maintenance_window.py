"""The maintenance window: when an update may be activated. Pure.

>>> from datetime import UTC, datetime
>>> window = MaintenanceWindow(start="22:00", end="04:00")
>>> is_open(window, datetime(2026, 1, 2, 3, 59, tzinfo=UTC)), is_open(window, datetime(2026, 1, 2, 4, 0, tzinfo=UTC))
(True, False)
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cellfleet.wire.reason import Reason, because
from cellfleet.wire.states import MaintenanceWindow

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def is_open(window: MaintenanceWindow, now: datetime) -> bool:
    """Whether a window is open. Equal start and end mean the whole day; a window belongs to the day on which it starts.

    Args:
        window: start and end of the local day, days of the week.
        now: time, with a time zone.
    """
    local = now.astimezone(timezone(timedelta(minutes=window.utc_offset_min)))
    minute, start, end = local.hour * 60 + local.minute, _minutes(window.start), _minutes(window.end)
    today, yesterday = (day % 7 in window.days for day in (local.weekday(), local.weekday() - 1))
    if start < end:
        return today and start <= minute < end
    if start > end:
        return (today and start <= minute) or (yesterday and minute < end)
    return today


def when_open(window: MaintenanceWindow) -> Reason:
    """The reason for an activation that waits for the window."""
    sign, minutes = ("-" if window.utc_offset_min < 0 else "+"), abs(window.utc_offset_min)
    offset = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    if len(set(window.days)) == 7:
        return because("update.window-daily", start=window.start, end=window.end, offset=offset)
    days = ", ".join(_DAYS[d] for d in sorted(set(window.days)))
    return because("update.window", days=days, start=window.start, end=window.end, offset=offset)


def _minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])
