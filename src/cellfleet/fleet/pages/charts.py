"""Data of a page as charts and plates want it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellfleet.fleet.pages.queries.device_queries import WellReading, well_order
from cellfleet.wire.rollout import FAILURES

PLATES: Mapping[int, tuple[int, int]] = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24)}
"""Wells of a plate -> rows and columns."""
MEMBER_STATES = (
    "succeeded",
    "updating",
    "deferred",
    "offered",
    "rolled-back",
    "refused",
    "failed",
    "silent",
    "waiting",
)
"""Member states in the order in which pages list them."""
HEAT_STEPS = 8
COLOURS = 8
LEAST_MS = 0.05
WAIT = "wait"
"""The stage before the work: from the disk to the segmenter."""


@dataclass(frozen=True)
class Cell:
    """A well of the plate; ``heat`` from 1 to HEAT_STEPS, 0: no value."""

    well: str
    text: str
    heat: int
    reading: WellReading | None


@dataclass(frozen=True)
class Plate:
    """A plate as a table. ``off``: wells that are not on a plate of this format. ``low``, ``high``: ends of the scale."""

    columns: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    off: tuple[WellReading, ...]
    low: float
    high: float


def plate_view(readings: Sequence[WellReading], plate_format: int, by: str) -> Plate:
    """Lay readings out as a plate.

    Args:
        by: ``confluence`` (scale 0 to 100 %) or ``count`` (scale from 0 to the greatest).
    """
    rows, columns = PLATES.get(plate_format, PLATES[96])
    names = [_letters(i) for i in range(rows)]
    by_well = {_plain(r.well): r for r in readings}
    values = [float(r.count) for r in readings] if by == "count" else []
    high = (max(values, default=0.0) or 1.0) if by == "count" else 100.0
    cells = tuple(
        (n, tuple(_cell(f"{n}{c}", by_well.get(f"{n}{c}"), by, high) for c in range(1, columns + 1))) for n in names
    )
    on = {f"{n}{c}" for n in names for c in range(1, columns + 1)}
    off = tuple(r for r in readings if _plain(r.well) not in on)
    return Plate(tuple(range(1, columns + 1)), cells, off, 0.0, high)


def _letters(index: int) -> str:
    return chr(ord("A") + index)


def _plain(well: str) -> str:
    """A01 as A1."""
    letters, number, _ = well_order(well)
    return f"{letters.strip()}{number}" if number else well


def _cell(well: str, reading: WellReading | None, by: str, high: float) -> Cell:
    if reading is None:
        return Cell(well, "", 0, None)
    value = float(reading.count) if by == "count" else reading.confluence_percent
    step = 1 + int(min(value, high) / high * (HEAT_STEPS - 1) + 0.5)
    return Cell(well, f"{value:,.0f}", max(1, min(HEAT_STEPS, step)), reading)


def curve_chart(
    points: Mapping[str, Sequence[tuple[float, float, float]]], column: int, unit: str, description: str
) -> dict[str, Any]:
    """Data of a line chart: hours against a column of the points, one series per well."""
    return {
        "unit": unit,
        "x_unit": "h",
        "description": description,
        "series": [{"name": well, "points": [(p[0], p[column]) for p in of]} for well, of in points.items() if of],
    }


def member_bar(counts: Mapping[str, int]) -> list[tuple[int, str]]:
    """Parts of the progress bar of members: (number, class of its colour). Those that wait are what is left of the bar."""
    under_way = counts.get("updating", 0) + counts.get("offered", 0)
    failures = sum(counts.get(state, 0) for state in FAILURES)
    return [
        (counts.get("succeeded", 0), "f-good"),
        (under_way, "f-run"),
        (counts.get("deferred", 0), "f-warn"),
        (failures, "f-bad"),
    ]


def coloured(stages: Sequence[tuple[str, float]]) -> list[tuple[str, float, str]]:
    """Stages of work, each with the class of its colour; those that take next to no time are left out, and waiting."""
    work = [(name, ms) for name, ms in stages if name != WAIT and ms >= LEAST_MS]
    return [(name, ms, f"f{i % COLOURS}") for i, (name, ms) in enumerate(work)]
