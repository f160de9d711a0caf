"""Pins and outcomes survive a power cut at every step."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cellfleet.device.scheduling.pins import Pin, append_outcome, read_outcomes, read_pins, write_pins
from cellfleet.wire.telemetry_events import FrameFailed
from simulators.disk import every_cut

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def failed(frame: str) -> FrameFailed:
    return FrameFailed(experiment="e1", frame=frame, pin=1, reason="x", failed_at=NOW)


def pin(number: int) -> Pin:
    return Pin(number=number, bundle_sha256=f"{number:064x}", at=NOW)


def test_an_outcome_that_was_written_stays(tmp_path: Path) -> None:
    """The first one makes the file, the second one is added to it."""
    for before in ([], ["f1"]):
        folder = tmp_path / f"results{len(before)}"
        folder.mkdir()
        for name in before:
            append_outcome(folder, failed(name))
        for survived in every_cut(folder, lambda folder=folder: append_outcome(folder, failed("f2"))):  # type: ignore[misc]
            found = [o.frame for o in read_outcomes(folder)]
            assert found == [*before, "f2"] or (not survived.done and found == before), survived


def test_pins_are_the_old_ones_or_the_new_ones(tmp_path: Path) -> None:
    write_pins(tmp_path, [pin(1)])
    for survived in every_cut(tmp_path, lambda: write_pins(tmp_path, [pin(1), pin(2)])):
        found = [p.number for p in read_pins(tmp_path)]
        assert found == [1, 2] or (not survived.done and found == [1]), survived
