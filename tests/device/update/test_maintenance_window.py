"""Maintenance windows: days, midnight, time zones, both ends."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cellfleet.device.update.maintenance_window import is_open, when_open
from cellfleet.wire.reason import english
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


def test_a_window_in_words() -> None:
    window = MaintenanceWindow(start="22:00", end="04:00", days=(5, 6), utc_offset_min=-330)
    assert english(when_open(window)) == "the maintenance window is Saturday, Sunday from 22:00 to 04:00 (UTC-05:30)"
    every_day = "the maintenance window is every day from 00:00 to 23:59 (UTC+00:00)"
    assert english(when_open(MaintenanceWindow())) == every_day
