"""Frames of a camera and their masks, in memory. It passes the same tests as the real scheduler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cellfleet.canonical import sha256_file
from cellfleet.device.interfaces import (
    FrameOutcome,
    FrameResult,
    GoldenOutcome,
    SegmenterFailure,
    SelfTested,
    Slot,
    WarmSegmenter,
    WorkSnapshot,
)
from cellfleet.errors import DeviceError
from cellfleet.wire.reason import Reason, english, text_reason
from cellfleet.wire.states import Counters

FRAMES_PER_EXPERIMENT = 3
LIVE = timedelta(seconds=60)
MOST_ATTEMPTS = 2
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Behaviour:
    """How a model behaves here."""

    ap50: float = 0.9
    other_ap50: float = 0.9
    milliseconds: float = 100.0
    live_milliseconds: float = 100.0
    memory_mb: float = 300.0
    live_memory_mb: float = 300.0
    selftest_problem: str = ""
    warm_problem: str = ""
    fails: bool = False
    crashes: bool = False


@dataclass
class SimulatedExperiment:
    """An experiment of the simulated camera.

    Attributes:
        slots: SHA-256 of the slots it was pinned to, the newest last; empty: it is not pinned yet; "": to none.
        pinned_at: time of the newest pin.
        taken: frame -> when it was taken.
        outcomes: frame -> result and time, under the newest pin.
        before: frames that were segmented under an earlier pin.
    """

    name: str
    slots: list[str] = field(default_factory=list)
    pinned_at: datetime = LONG_AGO
    taken: dict[str, datetime] = field(default_factory=dict)
    outcomes: dict[str, tuple[FrameResult, datetime]] = field(default_factory=dict)
    before: set[str] = field(default_factory=set)
    ended: bool = False

    @property
    def slot(self) -> str:
        """SHA-256 of the slot it is pinned to; empty: none."""
        return self.slots[-1] if self.slots else ""

    @property
    def pending(self) -> list[str]:
        """Frames without an outcome under the newest pin."""
        return [frame for frame in self.taken if frame not in self.outcomes]

    def pin(self, sha256: str, at: datetime) -> None:
        """Pin it anew: all its frames wait."""
        self.slots.append(sha256)
        self.pinned_at = at
        self.before |= set(self.outcomes)
        self.outcomes = {}


class SimulatedScheduler:
    """Segments frames of a simulated camera in memory. ``pins`` lie on the disk: they outlive a power cut.

    Attributes:
        behaviours: SHA-256 -> how that bundle behaves.
        takes_frames: the camera takes a frame at each poll, once there is an active slot.
        pins: every experiment with its pins.
        tested, repins, activations: what the agent asked for.
    """

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.takes_frames = True
        self.pins: list[SimulatedExperiment] = []
        self.tested: list[tuple[str, str, tuple[str, ...]]] = []
        self.repins: list[tuple[str, str]] = []
        self.activations: list[str] = []
        self._active = ""
        self._warm: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._now = LONG_AGO

    def power_cut(self) -> None:
        """Segmenters are gone."""
        self._active = ""
        self._warm.clear()
        self._attempts.clear()

    def begin(self) -> SimulatedExperiment:
        """The camera begins an experiment."""
        self.pins.append(SimulatedExperiment(f"exp-{len(self.pins)}"))
        return self.pins[-1]

    def take(self, experiment: SimulatedExperiment, at: datetime) -> str:
        """The camera takes a frame; gives its name."""
        name = f"f{sum(len(e.taken) for e in self.pins)}"
        experiment.taken[name] = at
        return name

    def poll(self, now: datetime) -> WorkSnapshot:
        """The camera takes a frame; one live frame and one that waits longer are segmented."""
        self._now = now
        if self.takes_frames and self._active:
            running = self.pins[-1] if self.pins and not self.pins[-1].ended else self.begin()
            self.take(running, now)
            running.ended = len(running.taken) >= FRAMES_PER_EXPERIMENT
        frames: list[FrameOutcome] = []
        failures: list[SegmenterFailure] = []
        for live in (True, False):
            self._segment_one(live, now, frames, failures)
        running_now = self.pins[-1] if self.pins and not self.pins[-1].ended else None
        return WorkSnapshot(
            frames=tuple(frames),
            failures=tuple(failures),
            memory_mb={f.slot: self._of(f.slot).live_memory_mb for f in frames},
            ready=bool(self._active),
            experiment=running_now.name if running_now is not None else None,
            pending=sum(len(e.pending) for e in self.pins),
            camera="running" if self.takes_frames else "stopped",
            segmenter="running" if self._active else "stopped",
        )

    def _segment_one(
        self, live: bool, now: datetime, frames: list[FrameOutcome], failures: list[SegmenterFailure]
    ) -> None:
        for experiment in self.pins:
            sha256 = experiment.slot or self._active
            for frame in experiment.pending if sha256 else ():
                is_live = now - experiment.taken[frame] < LIVE and frame not in experiment.before
                if is_live is not live:
                    continue
                if not experiment.slot:
                    experiment.pin(sha256, now)
                lost = self._of(sha256).crashes
                if lost:
                    failures.append(SegmenterFailure(sha256, "crash", text_reason("signal 11"), now))
                    self._attempts[frame] += 1
                if not lost or self._attempts[frame] >= MOST_ATTEMPTS:
                    frames.append(self._outcome(experiment, frame, live, now))
                return

    def warm(self, slot: Slot) -> WarmSegmenter:
        """Fails when the model does."""
        behaviour = self._of(slot.sha256)
        if behaviour.warm_problem:
            raise DeviceError(behaviour.warm_problem)
        self._warm.add(slot.sha256)
        return WarmSegmenter(slot.variant, f"run-{slot.sha256[:8]}", behaviour.memory_mb)

    def selftest(self, slot: Slot, golden_of: Sequence[Path], timeout_s: float) -> SelfTested:
        """Golden frames of its own, and of the active bundle."""
        assert timeout_s > 0
        behaviour = self._of(slot.sha256)
        self.tested.append((slot.sha256, slot.variant, tuple(str(p) for p in golden_of)))
        if behaviour.selftest_problem:
            return SelfTested(slot.variant, "", 0.0, (), text_reason(behaviour.selftest_problem))
        results = [
            GoldenOutcome(sha256_file(p), ap50, 1.0, 0.5, 0.9, behaviour.milliseconds)
            for p, ap50 in zip(golden_of, (behaviour.ap50, behaviour.other_ap50), strict=False)
        ]
        return SelfTested(slot.variant, f"run-{slot.sha256[:8]}", behaviour.memory_mb, tuple(results))

    def switch(self, slot: Slot | None) -> None:
        """New experiments use it."""
        self._active = slot.sha256 if slot is not None else ""
        self.activations.append(self._active)

    def repin(self, bad: Slot, good: Slot | None, since: datetime, reason: Reason) -> None:
        """Durable and idempotent, as the real one."""
        assert english(reason)
        assert since.tzinfo is not None
        target = good.sha256 if good is not None else ""
        for experiment in self.pins:
            if experiment.slot != bad.sha256:
                continue
            is_over = experiment is not self.pins[-1] or experiment.ended
            times = [experiment.pinned_at, *(at for _, at in experiment.outcomes.values())]
            if not is_over or experiment.pending or max(times) >= since:
                experiment.pin(target, self._now)
                self.repins.append((bad.sha256, target))

    def stop_unneeded(self, slot: Slot) -> None:
        """Its segmenter ends."""
        self._warm.discard(slot.sha256)

    def pinned(self) -> frozenset[str]:
        """Of experiments that go on or have frames left."""
        going_on = (e for e in self.pins if e.pending or (e is self.pins[-1] and not e.ended))
        return frozenset(e.slot for e in going_on if e.slot)

    def counters(self) -> Counters:
        """Frames of all experiments, under their newest pins."""
        results = [result for e in self.pins for result, _ in e.outcomes.values()]
        taken = sum(len(e.taken) for e in self.pins)
        return Counters(taken=taken, stored=taken, segmented=results.count("segmented"), failed=results.count("failed"))

    def close(self) -> None:
        """Nothing to end."""

    def _of(self, sha256: str) -> Behaviour:
        return self.behaviours.get(sha256, Behaviour())

    def _outcome(self, experiment: SimulatedExperiment, frame: str, live: bool, now: datetime) -> FrameOutcome:
        behaviour = self._of(experiment.slot)
        has_failed = behaviour.fails or behaviour.crashes
        result: FrameResult = "failed" if has_failed else "segmented"
        experiment.outcomes[frame] = result, now
        self._attempts.pop(frame, None)
        return FrameOutcome(
            experiment=experiment.name,
            frame=frame,
            slot=experiment.slot,
            result=result,
            milliseconds=behaviour.live_milliseconds,
            memory_mb=behaviour.live_memory_mb,
            live=live,
            at=now,
            reason=text_reason("the model failed") if has_failed else None,
        )
