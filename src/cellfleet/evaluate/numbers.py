"""Numbers as plain JSON data."""

from __future__ import annotations

from typing import Any

from cellfleet.metrics.summary import Numbers, Summary

KEY_NUMBERS = ("ap50", "map", "dice", "count_error", "confluence_error")
"""Those that people look at first, and that a champion is compared by."""


def numbers_json(numbers: Numbers) -> dict[str, Any]:
    """All fields; AP by threshold is a mapping of its own."""
    return {**vars(numbers), "ap": dict(numbers.ap)}


def summary_json(summary: Summary) -> dict[str, Any]:
    """Overall and strata."""
    return {
        "numbers": numbers_json(summary.overall),
        "strata": {name: numbers_json(n) for name, n in summary.strata.items()},
    }
