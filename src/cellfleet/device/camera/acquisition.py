"""Stores captured images as frames on the disk and groups them in experiments; ``process`` runs it.

All state is on the disk: after a kill at any time the next start resumes after the last stored frame, without duplicate or
lost frames.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cellfleet.config.fleet import CameraSection
from cellfleet.data.files import read_bytes
from cellfleet.device.camera.frame_store import (
    ExperimentFile,
    FrameFile,
    FramesFolder,
    experiment_name,
    frame_taken,
    number_of,
    read_quietly,
    safe_suffix,
)
from cellfleet.device.camera.heartbeat import CameraMode
from cellfleet.device.camera.inhibit_lease import Lease, drop_lease, write_lease
from cellfleet.device.camera.source import CameraSource, CapturedImage
from cellfleet.device.system.error_reasons import error_reason
from cellfleet.device.system.home import Home
from cellfleet.device.system.versioned_file import WriteFn
from cellfleet.errors import CameraError, ReadError, StorageError
from cellfleet.ports import Clock, write_atomic
from cellfleet.wire.reason import Reason, because, english

HOLD = "camera-hold.json"
_LEASE = "camera"
_LEASE_S = 120.0
_RETRY_S = 2.0


@dataclass
class RunningExperiment:
    """The running experiment, as it is on the disk."""

    facts: ExperimentFile
    frames: int
    last: FrameFile | None
    first_time_s: float | None


@dataclass(frozen=True)
class CameraView:
    """State of the camera after a step.

    Attributes:
        wait_s: longest wait before the next step.
    """

    state: CameraMode
    reason: Reason | None
    experiment: str
    taken: int
    wait_s: float


def free_mb(path: Path) -> float:
    """Free space on the disk of a folder, in MB."""
    return shutil.disk_usage(path).free / 1e6


class Camera:
    """Takes frames from a source.

    Args:
        home: of the instrument.
        settings: of its camera.
        min_free_mb: with less free space the camera waits.
        open_source: opens the source; called again after a failure.
        news: takes progress messages, one line each.
        free: returns the free MB of the disk that holds a folder.
        write: writes a file durably; tests pass one that fails.
    """

    def __init__(
        self,
        home: Home,
        settings: CameraSection,
        min_free_mb: float,
        open_source: Callable[[Camera], CameraSource],
        clock: Clock,
        *,
        news: Callable[[str], None] = lambda _text: None,
        free: Callable[[Path], float] = free_mb,
        write: WriteFn = write_atomic,
    ) -> None:
        self._home, self._settings, self._min_free_mb, self._clock = home, settings, min_free_mb, clock
        self._open_source, self._news, self._free = open_source, news, free
        self._folder = FramesFolder(home.frames, write)
        self._source: CameraSource | None = None
        self._reported_code = ""
        self._leased_until: datetime | None = None
        self.taken = sum(len(self._folder.frame_names(name)) for name in self._folder.names())
        self.running = self._find_running()
        self._last_image_s = clock.monotonic_s() - self._idle_at_start_s()

    def step(self) -> CameraView:
        """Take an image that is due; begin and end experiments."""
        try:
            view = self._step()
        except StorageError as e:
            view = self._view("waiting", error_reason(e), _RETRY_S)
        except CameraError as e:
            view = self._view("failing", error_reason(e), _RETRY_S)
        code = view.reason.code if view.reason else ""  # not the text: its numbers change with every step
        if code != self._reported_code:
            self._reported_code = code
            self._news(f"{view.state}: {english(view.reason)}" if view.reason else "resumes")
        return view

    def close(self) -> None:
        """Remove the lease. The experiment stays open; the next start resumes it."""
        drop_lease(self._home.inhibit, _LEASE)

    def newest_frames(self) -> list[FrameFile]:
        """Frames of the newest experiment that has frames, in order."""
        for name in reversed(self._folder.names()):
            if frames := self._frames_of(name):
                return frames
        return []

    def _frames_of(self, experiment: str) -> list[FrameFile]:
        found = (read_quietly(self._folder, experiment, frame) for frame in self._folder.frame_names(experiment))
        return [f for f in found if f is not None]

    def _step(self) -> CameraView:
        if (self._home.state / HOLD).exists():
            self._end("held")
            return self._view("held", because("camera.held"), _RETRY_S)
        if self._source is None:
            self._source = self._open_source(self)
        idle_s = self._clock.monotonic_s() - self._last_image_s
        if self.running is not None and self._source.is_full(self.running.frames, idle_s):
            self._end("complete")
        image = self._source.next()
        if image is None:
            if self._source.is_exhausted():
                self._end("the source is exhausted")
                return self._view("stopped", because("camera.all-taken"), 1.0)
            self._lease()
            return self._view("running", None, self._source.wait_s())
        free = self._free(_existing_parent(self._home.root))
        if free < self._min_free_mb:
            full = because("camera.disk-full", free_mb=free, limit_mb=self._min_free_mb)
            return self._view("waiting", full, _RETRY_S)
        self._take(self._source, image)
        return self._view("running", None, self._source.wait_s())

    def _take(self, source: CameraSource, image: CapturedImage) -> None:
        try:
            data = image.data if image.data is not None else _read(image.path)
        except ReadError as e:
            raise CameraError(e.message, hint=e.hint) from e
        now = self._clock.now()
        running = self.running or self._begin(now)
        self.running = running
        self._lease()
        facts = running.facts
        if running.first_time_s is None:
            running.first_time_s = image.time_s
        time_s = (now - facts.started_at).total_seconds()
        if image.time_s is not None and running.first_time_s is not None:
            time_s = image.time_s - running.first_time_s
        event = frame_taken(
            facts.experiment,
            running.frames,
            data,
            original=image.original,
            well=image.well or self._settings.wells[0],
            field=image.field,
            time_s=round(time_s, 3),
            at=now,
        )
        frame = FrameFile(
            taken=event,
            file=f"{event.frame}{safe_suffix(image.original)}",
            original=image.original.encode("utf-8", "replace").decode()[:4096],
            channels=image.channels,
            pixel_size_um=image.pixel_size_um,
            position=image.position,
            source_time_s=image.time_s,
        )
        self._folder.put(frame, data)
        running.frames += 1
        running.last = frame
        self.taken += 1
        self._last_image_s = self._clock.monotonic_s()
        source.mark_taken(image, event.frame)

    def _begin(self, now: datetime) -> RunningExperiment:
        names = self._folder.names()
        number = number_of(names[-1]) + 1 if names else 1
        facts = ExperimentFile(
            experiment=experiment_name(number, now),
            number=number,
            plate=self._settings.plate,
            plate_format=self._settings.plate_format,
            channels=self._settings.channels,
            pixel_size_um=self._settings.pixel_size_um,
            started_at=now,
        )
        self._folder.save(facts)
        self._news(f"experiment {facts.experiment} began")
        return RunningExperiment(facts, 0, None, None)

    def _end(self, why: str) -> None:
        if self.running is None:
            return
        facts = self.running.facts.model_copy(update={"ended_at": self._clock.now()})
        self._folder.save(facts)
        self._news(f"experiment {facts.experiment} ended with {self.running.frames} frames: {why}")
        self.running = None
        drop_lease(self._home.inhibit, _LEASE)
        self._leased_until = None

    def _find_running(self) -> RunningExperiment | None:
        names = self._folder.names()
        if not names:
            return None
        facts = self._folder.read(names[-1])
        if facts.ended_at is not None:
            return None
        frames = self._frames_of(names[-1])
        first = frames[0] if frames else None
        count = max((f.taken.index for f in frames), default=-1) + 1
        return RunningExperiment(facts, count, frames[-1] if frames else None, first.source_time_s if first else None)

    def _idle_at_start_s(self) -> float:
        """Seconds since the last frame of the previous run, by wall-clock time."""
        if self.running is None or self.running.last is None:
            return 0.0
        return max(0.0, (self._clock.now() - self.running.last.taken.taken_at).total_seconds())

    def _lease(self) -> None:
        """With ``inhibit_updates``, renew the lease while an experiment runs. It outlives a missed renewal."""
        if not self._settings.inhibit_updates or self.running is None:
            return
        now = self._clock.now()
        if self._leased_until is not None and self._leased_until - now > timedelta(seconds=_LEASE_S / 2):
            return
        self._leased_until = now + timedelta(seconds=_LEASE_S)
        reason = because("camera.experiment", experiment=self.running.facts.experiment)
        lease = Lease(holder="camera", reason=english(reason), reason_data=reason, expires_at=self._leased_until)
        write_lease(self._home.inhibit, _LEASE, lease)

    def _view(self, state: CameraMode, reason: Reason | None, wait_s: float) -> CameraView:
        name = self.running.facts.experiment if self.running is not None else ""
        return CameraView(state, reason, name, self.taken, wait_s)


def _read(path: Path) -> bytes:
    """Read all bytes. An empty file is a frame, too (an unreadable one)."""
    try:
        return read_bytes(path)
    except ReadError:
        if path.is_file() and path.stat().st_size == 0:
            return b""
        raise


def _existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
