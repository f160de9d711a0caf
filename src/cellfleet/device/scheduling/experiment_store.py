"""Experiments, frames, pins and outcomes of this instrument, as they are on the disk.

The first scan reads everything; later scans read only folders that changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cellfleet.canonical import canonical_bytes
from cellfleet.device.camera.frame_store import EXPERIMENT, ExperimentFile, FrameFile, FramesFolder, read_quietly
from cellfleet.device.scheduling.experiments import Experiment, FrameTally, State
from cellfleet.device.scheduling.pins import Outcome, Pin, append_outcome, read_outcomes, read_pins, write_pins
from cellfleet.device.system.error_reasons import error_reason
from cellfleet.errors import CellfleetError
from cellfleet.ports import write_atomic
from cellfleet.wire.reason import Reason, because
from cellfleet.wire.states import Counters
from cellfleet.wire.telemetry_events import FrameSegmented

CLOSED = "closed.json"
_SETTLED_NS = 100_000_000


class ExperimentStore:
    """All experiments of an instrument.

    Args:
        frames: ``HOME/frames``.
        results: ``HOME/results``.

    Attributes:
        experiments: by name, oldest first.
        problems: why folders cannot be read, by their names.
    """

    def __init__(self, frames: Path, results: Path) -> None:
        self._folder, self._results = FramesFolder(frames), results
        self.experiments: dict[str, Experiment] = {}
        self.problems: dict[str, Reason] = {}
        self._changed_ns = 0

    def scan(self) -> tuple[list[Experiment], list[tuple[Experiment, FrameFile]]]:
        """Read what has changed on the disk.

        Returns:
            Experiments that are new or changed (began, ended), and frames that are new, in order.
        """
        changed: list[Experiment] = []
        new: list[tuple[Experiment, FrameFile]] = []
        for name in self._names():
            try:
                self._scan_one(name, changed, new)
                self.problems.pop(name, None)
            except CellfleetError as e:
                self.problems[name] = error_reason(e)
            except OSError as e:
                path = str(self._folder.root / name)
                self.problems[name] = because("experiment.unreadable", path=path, detail=str(e.strerror))
        if self.problems:
            self._changed_ns = 0  # read unreadable folders again
        return changed, new

    def open(self) -> Iterator[Experiment]:
        """Experiments that are not closed, oldest first."""
        return (e for e in self.experiments.values() if e.closed is None)

    def running(self) -> Experiment | None:
        """The newest experiment, when it has not ended."""
        newest = next(reversed(self.experiments.values()), None)
        return newest if newest is not None and newest.facts.ended_at is None else None

    def has_ended(self, experiment: Experiment) -> bool:
        """Whether it has ended, or a newer one exists (the camera was interrupted and began another)."""
        return experiment.facts.ended_at is not None or experiment is not next(reversed(self.experiments.values()))

    def add_pin(self, experiment: Experiment, pin: Pin) -> None:
        """Add a pin, durably: from now on all frames are segmented under it.

        Args:
            experiment: reopened when it is closed.
            pin: its number is one above that of the last pin.

        Raises:
            StorageError: the disk refuses; the pins are as they were.
        """
        self._reopen(experiment)
        write_pins(experiment.results, [*experiment.pins, pin])
        experiment.pins.append(pin)
        experiment.before |= set(experiment.outcomes)
        experiment.outcomes = {}

    def fill_pin(self, experiment: Experiment, variant: str, run_digest: str) -> None:
        """Write the run of the last pin, durably.

        Args:
            experiment: it has a pin.
            variant, run_digest: as its segmenter reports them.

        Raises:
            StorageError: the disk refuses; the pins are as they were.
        """
        assert experiment.pin is not None
        pin = experiment.pin.model_copy(update={"variant": variant, "run_digest": run_digest})
        write_pins(experiment.results, [*experiment.pins[:-1], pin])
        experiment.pins[-1] = pin

    def note(self, experiment: Experiment, outcome: Outcome) -> bool:
        """Write an outcome, durably.

        Args:
            experiment: of the frame.
            outcome: under the pin that it names.

        Returns:
            False: the frame has an outcome under this pin already, or the pin is not the last one.

        Raises:
            StorageError: the disk refuses; the frame has no outcome.
        """
        if experiment.pin is None or outcome.pin != experiment.pin.number or outcome.frame in experiment.outcomes:
            return False
        append_outcome(experiment.results, outcome)
        experiment.outcomes[outcome.frame] = _state(outcome)
        return True

    def close(self, experiment: Experiment) -> None:
        """Close an experiment that is done: keep only its counts in memory."""
        tally = experiment.tally()
        number = experiment.pin.number if experiment.pin else 0
        facts = {"format_version": 1, "pin": number, **tally.__dict__}
        write_atomic(experiment.results / CLOSED, canonical_bytes(facts))
        experiment.closed, experiment.frames, experiment.outcomes, experiment.before = tally, {}, {}, set()

    def outcomes(self, experiment: Experiment) -> list[Outcome]:
        """All outcomes on the disk, of all pins, in order."""
        return read_outcomes(experiment.results)

    def counters(self) -> Counters:
        """Frames of all experiments."""
        tallies = [e.tally() for e in self.experiments.values()]
        return Counters(
            taken=sum(t.taken for t in tallies),
            stored=sum(t.stored for t in tallies),
            segmented=sum(t.segmented for t in tallies),
            failed=sum(t.failed for t in tallies),
        )

    def _names(self) -> list[str]:
        """Experiments that may have changed: all when folders were added or removed, else those that are not closed."""
        try:
            modified_ns = self._folder.root.stat().st_mtime_ns
        except OSError:
            return []
        if modified_ns == self._changed_ns:
            return [e.name for e in self.open()]
        names = self._folder.names()
        is_whole = len(names) == sum(1 for p in self._folder.root.iterdir() if p.is_dir())
        self._changed_ns = modified_ns if is_whole and _is_settled(modified_ns) else 0
        return names

    def _scan_one(self, name: str, changed: list[Experiment], new: list[tuple[Experiment, FrameFile]]) -> None:
        known = self.experiments.get(name)
        if known is not None and known.closed is not None:
            return
        modified_ns = (self._folder.root / name).stat().st_mtime_ns
        if known is not None and known.changed_ns == modified_ns:
            return
        facts = self._folder.read(name)
        if known is None:
            known = self.experiments[name] = self._load(facts)
            self.experiments = dict(sorted(self.experiments.items()))
            changed.append(known)
            if known.closed is not None:
                return
        elif facts != known.facts:
            known.facts = facts
            changed.append(known)
        new += [(known, frame) for frame in self._new_frames(known)]
        known.changed_ns = modified_ns if _is_settled(modified_ns) else 0

    def _load(self, facts: ExperimentFile) -> Experiment:
        results = self._results / facts.experiment
        found = Experiment(facts, results, pins=read_pins(results))
        found.closed = _read_closed(results, found.pin.number if found.pin else 0)
        if found.closed is None:
            self._load_outcomes(found)
        return found

    @staticmethod
    def _load_outcomes(experiment: Experiment) -> None:
        number = experiment.pin.number if experiment.pin else 0
        for outcome in read_outcomes(experiment.results):
            if outcome.pin == number:
                experiment.outcomes[outcome.frame] = _state(outcome)
            else:
                experiment.before.add(outcome.frame)

    def _reopen(self, experiment: Experiment) -> None:
        if experiment.closed is None:
            return
        experiment.closed, experiment.changed_ns, experiment.tables_at = None, 0, 0
        self._load_outcomes(experiment)
        self._new_frames(experiment)
        with contextlib.suppress(OSError):
            (experiment.results / CLOSED).unlink()

    def _new_frames(self, experiment: Experiment) -> list[FrameFile]:
        folder = self._folder.root / experiment.name
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries}
        fresh = sorted(
            n[:-5]
            for n in names
            if n.endswith(".json") and n != EXPERIMENT and n[0] != "." and n[:-5] not in experiment.frames
        )
        found = []
        for name in fresh:
            frame = read_quietly(self._folder, experiment.name, name)
            if frame is None:
                damaged = because("experiment.damaged", file=f"{folder / name}.json")
                self.problems[f"{experiment.name}/{name}"] = damaged
                continue
            experiment.frames[name] = frame
            if frame.file not in names:
                experiment.missing.add(name)
            found.append(frame)
        return found


def _is_settled(modified_ns: int) -> bool:
    """Whether a change is old enough: a recent one may be followed by another with the same time stamp."""
    return time.time_ns() - modified_ns > _SETTLED_NS


def _state(outcome: Outcome) -> State:
    return "segmented" if isinstance(outcome, FrameSegmented) else "failed"


def _read_closed(results: Path, pin: int) -> FrameTally | None:
    """The counts of an experiment that was closed under this pin; None: it was not, or the file is damaged."""
    try:
        facts = json.loads((results / CLOSED).read_bytes())
        if facts.pop("format_version") != 1 or facts.pop("pin") != pin:
            return None
        return FrameTally(**{name: int(facts[name]) for name in ("taken", "stored", "segmented", "failed")})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
