"""Maintenance windows: days, midnight, time zones, both ends."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cellfleet.device.update.maintenance_window import is_open, when_open
from cellfleet.wire.reason import because, english
from cellfleet.wire.states import MaintenanceWindow


@pytest.mark.parametrize(
    ("window", "hour", "day", "so"),
    [
        (MaintenanceWindow(start="10:00", end="13:00"), 12, 2, True),
        (MaintenanceWindow(start="10:00", end="12:00"), 12, 2, False),
        (MaintenanceWindow(start="22:00", end="04:00"), 23, 2, True),
        (MaintenanceWindow(start="22:00", end="04:00"), 3, 2, True),
        (MaintenanceWindow(start="22:00", end="04:00"), 4, 2, False),
        (MaintenanceWindow(start="22:00", end="04:00", days=(0,)), 3, 3, True),
        (MaintenanceWindow(start="22:00", end="04:00", days=(0,)), 3, 2, False),
        (MaintenanceWindow(start="20:00", end="21:00", utc_offset_min=480), 12, 2, True),
        (MaintenanceWindow(start="20:00", end="21:00", utc_offset_min=-480), 12, 2, False),
        (MaintenanceWindow(start="05:00", end="05:00", days=(0,)), 12, 2, True),
        (MaintenanceWindow(start="05:00", end="05:00", days=(1,)), 12, 2, False),
    ],
)
def test_windows(window: MaintenanceWindow, hour: int, day: int, so: bool) -> None:
    assert is_open(window, datetime(2026, 3, day, hour, 0, tzinfo=UTC)) is so


@pytest.mark.parametrize(
    ("start", "end", "clock", "so"),
    [
        ("10:00", "12:00", "10:00", True),
        ("10:00", "12:00", "09:59", False),
        ("10:00", "12:00", "11:59", True),
        ("10:00", "12:00", "12:00", False),
        ("22:00", "04:00", "22:00", True),
        ("22:00", "04:00", "21:59", False),
        ("22:00", "04:00", "03:59", True),
        ("22:00", "04:00", "04:00", False),
    ],
)
def test_the_first_minute_belongs_to_a_window_the_last_one_does_not(start: str, end: str, clock: str, so: bool) -> None:
    hour, minute = (int(part) for part in clock.split(":"))
    now = datetime(2026, 3, 2, hour, minute, tzinfo=UTC)
    assert is_open(MaintenanceWindow(start=start, end=end), now) is so


MONDAY, TUESDAY, SUNDAY = 0, 1, 6


@pytest.mark.parametrize(
    ("days", "start", "end", "day", "clock", "so"),
    [
        # within one day: the minutes of both ends count, and the day is that of the clock (2 March 2026 is a Monday)
        ((MONDAY,), "10:30", "10:45", 2, "10:29", False),
        ((MONDAY,), "10:30", "10:45", 2, "10:30", True),
        ((MONDAY,), "10:30", "10:45", 2, "10:44", True),
        ((MONDAY,), "10:30", "10:45", 2, "10:45", False),
        ((MONDAY,), "10:30", "10:45", 2, "11:35", False),
        ((TUESDAY,), "10:30", "10:45", 2, "10:35", False),
        ((SUNDAY,), "10:30", "10:45", 2, "10:35", False),
        ((SUNDAY,), "10:30", "10:45", 1, "10:35", True),
        # over midnight: before it the day of the clock counts, after it the day before; Sunday is before Monday
        ((MONDAY,), "22:30", "03:15", 2, "22:29", False),
        ((MONDAY,), "22:30", "03:15", 2, "22:30", True),
        ((MONDAY,), "22:30", "03:15", 2, "23:59", True),
        ((MONDAY,), "22:30", "03:15", 3, "00:00", True),
        ((MONDAY,), "22:30", "03:15", 3, "03:14", True),
        ((MONDAY,), "22:30", "03:15", 3, "03:15", False),
        ((MONDAY,), "22:30", "03:15", 3, "22:30", False),
        ((MONDAY,), "22:30", "03:15", 2, "03:14", False),
        ((SUNDAY,), "22:30", "03:15", 2, "00:00", True),
        ((SUNDAY,), "22:30", "03:15", 2, "22:30", False),
        ((MONDAY,), "22:30", "03:15", 2, "12:00", False),
        ((MONDAY,), "22:30", "00:00", 2, "23:59", True),
        ((MONDAY,), "22:30", "00:00", 3, "00:00", False),
        # equal ends: the whole day of the clock, nothing of the next one
        ((MONDAY,), "05:15", "05:15", 2, "00:00", True),
        ((MONDAY,), "05:15", "05:15", 2, "05:14", True),
        ((MONDAY,), "05:15", "05:15", 2, "05:15", True),
        ((MONDAY,), "05:15", "05:15", 2, "23:59", True),
        ((MONDAY,), "05:15", "05:15", 3, "00:00", False),
        ((MONDAY,), "05:15", "05:15", 3, "05:14", False),
        ((MONDAY,), "00:00", "00:00", 1, "23:59", False),
    ],
)
def test_days_and_minutes(days: tuple[int, ...], start: str, end: str, day: int, clock: str, so: bool) -> None:
    now = datetime.fromisoformat(f"2026-03-{day:02d}T{clock}+00:00")
    assert is_open(MaintenanceWindow(days=days, start=start, end=end), now) is so


@pytest.mark.parametrize(
    ("offset_min", "now", "so"),
    [
        (480, "2026-03-02T16:30+00:00", True),  # Tuesday 00:30 there
        (480, "2026-03-02T15:59+00:00", False),  # still Monday there
        (-480, "2026-03-03T08:30+00:00", True),  # Tuesday 00:30 there
        (-480, "2026-03-03T07:59+00:00", False),
        (345, "2026-03-02T18:15+00:00", True),  # 00:00 there
        (345, "2026-03-02T18:14+00:00", False),
        (0, "2026-03-03T09:30+09:00", True),  # a clock of another zone is converted
        (0, "2026-03-03T00:30+09:00", False),
    ],
)
def test_day_and_time_are_those_at_the_window_s_offset(offset_min: int, now: str, so: bool) -> None:
    window = MaintenanceWindow(days=(TUESDAY,), start="00:00", end="01:00", utc_offset_min=offset_min)
    assert is_open(window, datetime.fromisoformat(now)) is so


@pytest.mark.parametrize(
    ("offset_min", "text"),
    [(0, "+00:00"), (1, "+00:01"), (-1, "-00:01"), (59, "+00:59"), (60, "+01:00"), (345, "+05:45"), (-840, "-14:00")],
)
def test_the_offset_in_words(offset_min: int, text: str) -> None:
    assert when_open(MaintenanceWindow(utc_offset_min=offset_min)).values["offset"] == text
    some_days = when_open(MaintenanceWindow(utc_offset_min=offset_min, days=(0,)))
    assert some_days.values["offset"] == text


@pytest.mark.parametrize(
    ("days", "text"),
    [
        ((0, 1, 2, 3, 4, 5), "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday"),
        ((6, 0, 6), "Monday, Sunday"),
        ((3, 3, 3, 3, 3, 3, 3), "Thursday"),
    ],
)
def test_days_in_words_are_in_order_and_once(days: tuple[int, ...], text: str) -> None:
    reason = when_open(MaintenanceWindow(days=days, start="01:02", end="03:04"))
    assert reason == because("update.window", days=text, start="01:02", end="03:04", offset="+00:00")


def test_a_window_in_words() -> None:
    window = MaintenanceWindow(start="22:00", end="04:00", days=(5, 6), utc_offset_min=-330)
    assert english(when_open(window)) == "the maintenance window is Saturday, Sunday from 22:00 to 04:00 (UTC-05:30)"
    every_day = "the maintenance window is every day from 00:00 to 23:59 (UTC+00:00)"
    assert english(when_open(MaintenanceWindow())) == every_day
