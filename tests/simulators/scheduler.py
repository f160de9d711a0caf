"""Frames of a camera and their masks, in memory: what the agent sees of the part that works on frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from cellfleet.canonical import sha256_file
from cellfleet.device.interfaces import (
    FrameOutcome,
    GoldenResult,
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
class Pin:
    """An experiment's pins, newest last: SHA-256 of the slot."""

    slots: list[str]
    frames: int = 0
    ended: bool = False
    redrawn: set[int] = field(default_factory=set)


class SimulatedScheduler:
    """Work on frames. ``pins`` lie on the disk: they outlive a power cut; the rest does not.

    Attributes:
        behaviours: SHA-256 -> how that bundle behaves.
        takes_frames: the camera takes frames.
        tested, repins: what the agent asked for.
    """

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.takes_frames = True
        self.pins: list[Pin] = []
        self.done: set[tuple[str, str, int]] = set()
        self.tested: list[tuple[str, str, tuple[str, ...]]] = []
        self.repins: list[tuple[str, str]] = []
        self.activations: list[str] = []
        self.drawn = 0
        self._active = ""
        self._warm: set[str] = set()
        self._redraw: list[tuple[int, str]] = []

    def power_cut(self) -> None:
        """Segmenters are gone."""
        self._active = ""
        self._warm.clear()

    def poll(self, now: datetime) -> WorkSnapshot:
        """One frame is taken and drawn, and one is drawn again where an experiment was pinned anew."""
        frames, troubles = [], []
        if self._redraw:
            index, sha256 = self._redraw.pop(0)
            frames.append(self._outcome(index, sha256, now))
        if self.takes_frames and self._active:
            if not self.pins or self.pins[-1].ended:
                self.pins.append(Pin([self._active]))
            index, pin = len(self.pins) - 1, self.pins[-1]
            pin.frames += 1
            pin.ended = pin.frames >= FRAMES_PER_EXPERIMENT
            sha256 = pin.slots[-1]
            if self._of(sha256).crashes:
                troubles.append(SegmenterFailure(sha256, "crash", text_reason("signal 11"), now))
            else:
                frames.append(self._outcome(index, sha256, now))
        memory = {f.slot: self._of(f.slot).live_memory_mb for f in frames}
        self.drawn += len(frames)
        seen = WorkSnapshot(tuple(frames), tuple(troubles), memory, ready=bool(self._active), camera="running")
        return seen if self.takes_frames else replace(seen, camera="stopped")

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
            GoldenResult(sha256_file(p), ap50, 1.0, 0.5, 0.9, behaviour.milliseconds)
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
        for index, pin in enumerate(self.pins):
            if pin.slots[-1] == bad.sha256 and target:
                pin.slots.append(target)
                self._redraw += [(index, target)] * pin.frames
                self.repins.append((bad.sha256, target))

    def cool(self, slot: Slot) -> None:
        """Its segmenter ends."""
        self._warm.discard(slot.sha256)

    def pinned(self) -> frozenset[str]:
        """Of the experiment that runs."""
        return frozenset(p.slots[-1] for p in self.pins if not p.ended)

    def counters(self) -> Counters:
        """All that were drawn."""
        return Counters(taken=self.drawn, stored=self.drawn, segmented=self.drawn)

    def close(self) -> None:
        """Nothing to end."""

    def _of(self, sha256: str) -> Behaviour:
        return self.behaviours.get(sha256, Behaviour())

    def _outcome(self, index: int, sha256: str, now: datetime) -> FrameOutcome:
        behaviour = self._of(sha256)
        result, reason = ("failed", text_reason("the model failed")) if behaviour.fails else ("segmented", None)
        return FrameOutcome(
            experiment=f"exp-{index}",
            frame=f"f{self.drawn}",
            slot=sha256,
            result=result,  # type: ignore[arg-type]
            milliseconds=behaviour.live_milliseconds,
            memory_mb=behaviour.live_memory_mb,
            live=True,
            at=now,
            reason=reason,
        )
