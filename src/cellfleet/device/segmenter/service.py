"""Executes requests to the segmenter program: segments frames and golden frames, writes results and tables."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import cv2
import psutil

from cellfleet._version import __version__
from cellfleet.bundle import Bundle, open_bundle
from cellfleet.canonical import digest_of
from cellfleet.config.model import SegmentSection
from cellfleet.data.images.frame import Frame
from cellfleet.data.images.reader import decode_image, load_raw
from cellfleet.device.segmenter.thumbnails import frame_jpeg, overlay_jpeg
from cellfleet.errors import CellfleetError, ReadError, SegmentError, StorageError
from cellfleet.ports import Clock, SystemClock, write_atomic
from cellfleet.runtime.inputs import InputIdentity, LoadedFrame
from cellfleet.runtime.loader import load_segmenter
from cellfleet.runtime.maps import select_channels
from cellfleet.runtime.results.frame_writer import FrameWriter
from cellfleet.runtime.results.mask_file import read_labels
from cellfleet.runtime.results.run_folder import Row, RunFolder
from cellfleet.runtime.results.run_tables import write_run_tables
from cellfleet.runtime.segmenter import Segmentation, Segmenter
from cellfleet.runtime.selftest import least_scores, score_golden
from cellfleet.wire.segmenter import (
    PROTOCOL,
    Answer,
    Failed,
    FailureKind,
    FrameFacts,
    GoldenFrameResult,
    GoldenResult,
    MaskRow,
    PingRequest,
    Pong,
    Ready,
    Request,
    Segmented,
    SegmentRequest,
    SelfTestRequest,
    SelfTestResult,
    Tables,
    TablesRequest,
)
from cellfleet.wire.telemetry_events import Flag

_LOG = logging.getLogger(__name__)
_KEPT_FOLDERS = 4
_RUN_FORMAT = 1
_NAMED_FACTS = ("experiment", "well", "field", "time_s", "index", "taken_at")
"""Facts of the camera that the tables contain."""


def open_service(bundle: Path, variant: str, threads: int, tile_px: int) -> SegmenterService:
    """Open a bundle and load its network.

    Args:
        bundle: path.
        variant: ``engine/precision``; empty: the default.
        threads: CPU threads; 0: all.
        tile_px: size of tiles.

    Returns:
        The service, ready for requests.

    Raises:
        CellfleetError: the bundle is refused, or the network does not run here.
    """
    if threads > 0:
        cv2.setNumThreads(threads)
    opened = open_bundle(bundle)
    settings = SegmentSection(threads=threads, tile_px=tile_px)
    return SegmenterService(opened, load_segmenter(opened, variant or None, settings), SystemClock())


class SegmenterService:
    """A loaded model."""

    def __init__(self, bundle: Bundle, segmenter: Segmenter, clock: Clock) -> None:
        if segmenter.origin is None:
            raise SegmentError("the segmenter has no origin")
        self._bundle, self._segmenter, self._origin, self._clock = bundle, segmenter, segmenter.origin, clock
        self._folders: dict[str, RunFolder] = {}

    def ready(self) -> Ready:
        """The first line: facts of this segmenter."""
        origin = self._origin
        return Ready(
            protocol=PROTOCOL,
            run_digest=origin.run_digest,
            variant=origin.variant,
            engine=origin.engine,
            engine_version=origin.engine_version,
            memory_mb=self.memory_mb(),
            origin=asdict(origin),
        )

    def memory_mb(self) -> float:
        """Resident memory of this process, in MB."""
        return round(float(psutil.Process().memory_info().rss) / 1e6, 1)

    def answer(self, request: Request) -> Answer:
        """Execute a request.

        Raises:
            CellfleetError: it fails.
        """
        match request:
            case SegmentRequest():
                return self._segment(request)
            case SelfTestRequest():
                results = tuple(self._golden_of(Path(p)) for p in request.golden_of)
                return SelfTestResult(id=request.id, results=results, memory_mb=self.memory_mb())
            case TablesRequest():
                frames, objects, _ = write_run_tables(self._folder(Path(request.out)))
                return Tables(id=request.id, frames=frames, objects=objects, memory_mb=self.memory_mb())
            case PingRequest():
                return Pong(id=request.id, memory_mb=self.memory_mb())

    def failed(self, number: int | None, error: CellfleetError) -> Failed:
        """The answer to a failed request.

        Args:
            number: id of the request; None: the line has none.
            error: the reason; its class gives the kind of the failure.
        """
        kind: FailureKind = "model"
        if isinstance(error, ReadError):
            kind = "frame"
        elif isinstance(error, StorageError):
            kind = "disk"
        return Failed(id=number, kind=kind, message=error.message, hint=error.hint, memory_mb=self.memory_mb())

    def _segment(self, request: SegmentRequest) -> Segmented:
        out = Path(request.out)
        start = self._clock.monotonic_s()
        loaded = self._load(Path(request.frame), out, request)
        folder = self._folder(out)
        writer = FrameWriter(folder, self._origin, contours=False, overlays=request.overlay)
        read_ms = 1e3 * (self._clock.monotonic_s() - start)
        row = _done_row(folder, loaded.identity) if writer.is_done(loaded.identity) else None
        if row is None:
            found = self._segmenter.segment(loaded.frame)
            row = writer.write(loaded, found, self._segmenter.spec)
            stages = row["timings_ms"] | {"read": read_ms}
            total = 1e3 * (self._clock.monotonic_s() - start)
            timings = stages | {"write": max(0.0, total - read_ms - row["timings_ms"]["total"]), "total": total}
            at = datetime.now(UTC)
        else:  # a power cut came between the row and the answer: reuse the row
            found, timings = None, dict(row["timings_ms"])
            at = datetime.fromtimestamp((folder.path / row["files"]["mask"]).stat().st_mtime, UTC)
        files: dict[str, str] = {k: str(folder.path / v) for k, v in row["files"].items()}
        if request.thumbnail:
            files |= self._pictures(Path(request.thumbnail), loaded.frame, found, folder, row)
        numbers = self._row(request.facts, row, timings, at)
        return Segmented(id=request.id, row=numbers, files=files, memory_mb=self.memory_mb())

    def _load(self, path: Path, out: Path, request: SegmentRequest) -> LoadedFrame:
        raw, facts = load_raw(path), request.facts
        if raw.sha256 != facts.sha256:
            raise ReadError(f"{path}: changed since it was taken (its SHA-256 differs)", hint="check the disk")
        channels = request.channels or tuple(self._segmenter.spec.channels)
        requested, default = request.pixel_size_um, request.default_pixel_size_um
        frame = decode_image(raw, str(path), channels=channels)
        size = next((s for s in (requested, frame.pixel_size_um, default) if s is not None), None)
        rules = digest_of({"channels": list(channels), "pixel_size_um": requested, "default": default})[:16]
        known = facts.model_dump(mode="json", include=set(_NAMED_FACTS))
        metadata: dict[str, str] = {**frame.metadata, **{name: str(known[name]) for name in _NAMED_FACTS}}
        source = Path(os.path.relpath(path, out)).as_posix()  # stays valid when the instrument's folder is moved
        named = Frame(frame.pixels, frame.channels, size, metadata, path.name)
        return LoadedFrame(facts.frame, InputIdentity(source, None, raw.sha256, rules), named)

    def _folder(self, out: Path) -> RunFolder:
        key = str(out)
        if key not in self._folders:
            while len(self._folders) >= _KEPT_FOLDERS:
                self._folders.pop(next(iter(self._folders)))
            folder = RunFolder(out, self._origin.run_digest)
            if not (folder.path / "run.json").is_file():
                folder.write_run(
                    {
                        "format_version": _RUN_FORMAT,
                        **asdict(self._origin),
                        "model_path": str(self._bundle.path.absolute()),
                        "cellfleet_version": __version__,
                    }
                )
            self._folders[key] = folder
        folder = self._folders[key]
        folder.register(datetime.now(UTC).isoformat())
        return folder

    def _pictures(
        self, path: Path, frame: Frame, found: Segmentation | None, folder: RunFolder, row: Row
    ) -> dict[str, str]:
        plane = select_channels(self._segmenter.spec, frame)[0]
        labels = found.labels if found is not None else read_labels(folder.path / row["files"]["mask"])
        over = path.with_name(f"{path.stem}.overlay{path.suffix}")
        write_atomic(path, frame_jpeg(plane))
        write_atomic(over, overlay_jpeg(plane, labels))
        return {"thumbnail": str(path), "thumbnail_overlay": str(over)}

    def _row(self, facts: FrameFacts, row: Row, timings: dict[str, float], at: datetime) -> MaskRow:
        origin = self._origin
        return MaskRow(
            experiment=facts.experiment,
            frame=facts.frame,
            run_digest=origin.run_digest,
            bundle_sha256=origin.model_sha256,
            variant=origin.variant,
            engine_version=f"{origin.engine} {origin.engine_version}",
            count=row["count"],
            confluence_percent=row["confluence_percent"],
            per_mm2=row["per_mm2"],
            features=row.get("features", {}),
            flags=tuple(Flag.model_validate(flag) for flag in row["flags"]),
            timings_ms={k: round(v, 3) for k, v in timings.items()},
            mask_sha256=row["mask_sha256"],
            segmented_at=at,
        )

    def _golden_of(self, path: Path) -> GoldenResult:
        """Segment and score the golden frames of a bundle: its own, or those of the active one."""
        name = self._origin.variant
        try:
            bundle = self._bundle if path == self._bundle.path else open_bundle(path)
            own = bundle.sha256 == self._bundle.sha256
            found = score_golden(self._segmenter, bundle.golden(), name if own else "")
        except StorageError:
            raise
        except CellfleetError as e:
            return GoldenResult(
                of=str(path), ap50=0, agreement=0, least_ap50=0, least_agreement=0, worst_ms=0, problem=e.message
            )
        variant = next(v for v in self._bundle.variants if v.name == name)
        least_ap50, least_agreement = least_scores(bundle, variant) if own else (0.0, 0.0)
        frames = (GoldenFrameResult(name=f.name, ap50=f.ap50, count=f.count, ms=f.milliseconds) for f in found.frames)
        return GoldenResult(
            of=str(path),
            frames=tuple(frames),
            ap50=found.ap50,
            agreement=found.agreement,
            least_ap50=least_ap50,
            least_agreement=least_agreement,
            worst_ms=found.milliseconds,
        )


def _done_row(folder: RunFolder, identity: InputIdentity) -> Row | None:
    wanted = asdict(identity)
    return next((row for row in folder.current() if row["identity"] == wanted), None)
