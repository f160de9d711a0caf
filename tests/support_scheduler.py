"""An instrument for tests of its work: slots with real bundles, frames on the disk, segmenter programs that misbehave."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cellfleet.canonical import sha256_hex
from cellfleet.config import Settings, load_project
from cellfleet.device.camera.frame_store import ExperimentFile, FrameFile, FramesFolder, experiment_name, frame_taken
from cellfleet.device.interfaces import FrameOutcome, SegmenterFailure, Slot, WorkSnapshot
from cellfleet.device.scheduling.pins import read_outcomes
from cellfleet.device.scheduling.scheduler import FrameScheduler
from cellfleet.device.scheduling.segmenter_command import StartProgram, start_process
from cellfleet.device.system.home import Home
from cellfleet.errors import StorageError
from cellfleet.ports import SystemClock, make_dir
from cellfleet.wire.telemetry_events import Event, FrameFailed, FrameSegmented, FrameTaken
from simulators.segmenter import Flags, ThreadedSegmenter
from support_bundle import discs, tiny_bundle
from support_onnx import tiny_spec
from support_waiting import wait_until

START = datetime(2026, 1, 31, 12, tzinfo=UTC)

WRAPPER = """
import os, sys, threading
from pathlib import Path
sys.path.insert(0, {tests!r})
from cellfleet.device.segmenter import main
from simulators.segmenter import Flags
flags, whole = Flags(Path({flags!r})), main.answer_line
def answer_line(service, line):
    if flags.taken("crash", line):
        os.kill(os.getpid(), 9)
    if flags.taken("hang", line):
        threading.Event().wait()
    answer = whole(service, line)
    if flags.taken("die", line):
        os.kill(os.getpid(), 9)
    return answer
main.answer_line = answer_line
sys.exit(main.main())
"""


@functools.cache
def bundle_bytes(version: str, level: float) -> bytes:
    """A bundle of the tiny network, which finds what is brighter than the level."""
    with tempfile.TemporaryDirectory() as folder:
        return tiny_bundle(Path(folder), tiny_spec(version=version), level=level).read_bytes()


def taken_frame(index: int, problem: str = "") -> FrameTaken:
    """The event of a frame."""
    return FrameTaken(
        experiment="e1", frame=f"f{index}", index=index, well="A1", time_s=0, taken_at=START, sha256="0" * 64, bytes=1,
        problem=problem,
    )  # fmt: skip


class Sink:
    """Keeps what it is given, once each, as the spool does; ``refuses`` is a disk that takes nothing."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.refuses = False

    def put(self, event: Event) -> None:
        if self.refuses:
            raise StorageError("spool.db: no space left on the device", hint="free some space")
        if event not in self.events:
            self.events.append(event)

    def of(self, kind: str) -> list[Any]:
        return [e for e in self.events if e.event == kind]


class ShiftedClock(SystemClock):
    """The time of day is moved by ``shift``; waits take as long as they take."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.shift


class Instrument:
    """A home with frames, and its scheduler.

    Args:
        root: a folder that is not there yet.
        real: segmenters are processes; else they are threads of the test.
        settings: ``device__threads="2"`` and so on; with ``device__software`` segmenters are processes.

    Attributes:
        flags: see ``simulators.segmenter.Flags``.
        seen: the latest snapshot; ``outcomes`` and ``losses`` are those of all snapshots.
    """

    def __init__(self, root: Path, real: bool = False, **settings: str) -> None:
        self.home = Home.at(root)
        self.flags = root / "flags"
        self.flags.mkdir(parents=True)
        self.program = root / "segmenter.py"
        tests = str(Path(__file__).resolve().parent)
        self.program.write_text(WRAPPER.format(flags=str(self.flags), tests=tests), encoding="utf-8")
        self.start: StartProgram = start_process if real or "device__software" in settings else self._start_thread
        chosen = {
            "device.software": f"{sys.executable} {self.program}",
            "device.threads": "1",
            "agent.retry_s": "0.1",
            **{k.replace("__", "."): v for k, v in settings.items()},
        }
        overrides = [f"{k}={v}" for k, v in chosen.items()]
        self.settings: Settings = load_project(root, environ={}, overrides=overrides).settings
        self.sink, self.clock = Sink(), ShiftedClock()
        self.frames = FramesFolder(self.home.frames)
        self.works: list[FrameScheduler] = []
        self.outcomes: list[FrameOutcome] = []
        self.losses: list[SegmenterFailure] = []
        self.seen = WorkSnapshot()

    def slot(self, version: str = "1.0.0", level: float = 0.75) -> Slot:
        """An installed slot of the tiny network."""
        bundle = bundle_bytes(version, level)
        sha256 = sha256_hex(bundle)
        folder = self.home.slots / sha256[:12]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "artifact.zip").write_bytes(bundle)
        slot = Slot(folder, sha256, "tiny", version, 1, release_id=7, variant="onnxruntime/fp32")
        from cellfleet.device.slots import Slots

        return Slots(self.home).note(slot)

    def begin(self, number: int = 1) -> ExperimentFile:
        """A new experiment on the disk."""
        at = datetime.now(UTC)
        facts = ExperimentFile(
            experiment=experiment_name(number, at),
            number=number,
            plate="P1",
            channels=("phase",),
            pixel_size_um=0.5,
            started_at=at,
        )
        self.frames.save(facts)
        return facts

    def end(self, facts: ExperimentFile, at: datetime | None = None) -> None:
        """The experiment ends."""
        self.frames.save(facts.model_copy(update={"ended_at": at or datetime.now(UTC)}))

    def take(self, facts: ExperimentFile, index: int, data: bytes | None = None, at: datetime | None = None) -> str:
        """A frame of discs, or other bytes; gives its name."""
        if data is None:
            done, png = cv2.imencode(".png", discs(index)[0])
            assert done
            data = np.asarray(png).tobytes()
        event = frame_taken(
            facts.experiment,
            index,
            data,
            original=f"A01_{index}.png",
            well="A1",
            field=1,
            time_s=60.0 * index,
            at=at or datetime.now(UTC),
        )
        self.frames.put(FrameFile(taken=event, file=f"{event.frame}.png", original="x.png", position=index), data)
        return event.frame

    def open(self, active: Slot | None = None) -> FrameScheduler:
        """The work, as the agent opens it."""
        work = FrameScheduler(self.home, self.settings, self.sink, self.clock, self.start)
        self.works.append(work)
        work.switch(active)
        return work

    def _start_thread(self, argv: Sequence[str], threads: int, log_file: Path) -> ThreadedSegmenter:
        assert threads == 1
        make_dir(log_file.parent)
        return ThreadedSegmenter(argv, flags=Flags(self.flags))

    def poll(self, work: FrameScheduler) -> WorkSnapshot:
        """One poll; what it tells of frames and losses is kept."""
        self.seen = work.poll(self.clock.now())
        self.outcomes += self.seen.frames
        self.losses += self.seen.failures
        return self.seen

    def until(self, work: FrameScheduler, true: Callable[[], object]) -> None:
        """Poll until something is true."""

        def so() -> object:
            if not true():
                self.poll(work)
            return true()

        wait_until(so, lambda: (self.seen, self.outcomes[-3:], self.losses[-3:]), every_s=0.01)

    def rows(self, facts: ExperimentFile, pin: int = 1) -> list[FrameSegmented]:
        """Masks of an experiment under a pin, as they lie on the disk."""
        found = read_outcomes(self.home.results / facts.experiment)
        return [o for o in found if isinstance(o, FrameSegmented) and o.pin == pin]

    def failures(self, facts: ExperimentFile) -> list[FrameFailed]:
        """Frames without a mask, as they lie on the disk."""
        return [o for o in read_outcomes(self.home.results / facts.experiment) if isinstance(o, FrameFailed)]

    def close(self) -> None:
        """End everything."""
        for work in self.works:
            work.close()
