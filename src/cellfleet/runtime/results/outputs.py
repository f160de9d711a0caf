"""Segment files and write everything that people and programs want of them: masks, contours, overlays, tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellfleet._version import __version__
from cellfleet.errors import CellfleetError, ReadError, SegmentError
from cellfleet.ports import Clock, ProgressFn, SystemClock, silent
from cellfleet.runtime.inputs import Input, InputIdentity, LoadedFrame, Reading, list_inputs, load_frames, printable
from cellfleet.runtime.results.frame_writer import FrameWriter
from cellfleet.runtime.results.run_folder import RunFolder
from cellfleet.runtime.results.run_tables import write_run_tables
from cellfleet.runtime.segmenter import Origin, Segmenter

RUN_FORMAT = 1


@dataclass(frozen=True)
class OutputOptions:
    """What is read and written beside masks and tables.

    Attributes:
        contours, overlays: write these files.
        channels: names of the files' channels in their order; empty: as files, index.csv and the model name them.
        pixel_size_um: counts before what files and index.csv say.
    """

    contours: bool = True
    overlays: bool = True
    channels: tuple[str, ...] = ()
    pixel_size_um: float | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of files that every frame gets."""
        return ("mask", *(["contours"] if self.contours else []), *(["overlay"] if self.overlays else []))

    @property
    def decisive(self) -> dict[str, Any]:
        """The options that decide a mask, for the run digest; plain JSON data."""
        facts: dict[str, Any] = {"channels": list(self.channels), "pixel_size_um": self.pixel_size_um}
        return {name: value for name, value in facts.items() if value}


@dataclass(frozen=True)
class Failure:
    """A file or frame that could not be segmented: which, why, what to do."""

    source: str
    message: str
    hint: str


@dataclass(frozen=True)
class Report:
    """What ``segment_files`` did.

    Attributes:
        folder: of this run digest.
        run_digest: of this run.
        supersedes: run digest that was the current one of the output folder before; None when there was none.
        segmented, skipped: frames of this call; frames that were done already.
        frames, objects: in the tables.
        ms_per_frame: median of the frames of this call, reading and writing not counted; None when there was none.
        failed: what could not be segmented.
        parquet: the tables are there as Parquet, too.
    """

    folder: Path
    run_digest: str
    supersedes: str | None
    segmented: int
    skipped: int
    frames: int
    objects: int
    ms_per_frame: float | None
    failed: tuple[Failure, ...]
    parquet: bool


def segment_files(
    segmenter: Segmenter,
    paths: Sequence[Path],
    out: Path,
    options: OutputOptions | None = None,
    *,
    model_path: Path | None = None,
    progress: ProgressFn = silent,
    on_failure: Callable[[Failure], None] = lambda _failure: None,
    clock: Clock | None = None,
) -> Report:
    """Segment images, videos and folders of them; see ``cellfleet.runtime.results.run_folder`` for what lies where afterwards.

    A file that cannot be read or segmented is reported and the others go on. What is done stays done: the same call
    again passes over it.

    Args:
        segmenter: from ``load_segmenter``; its ``decisive`` settings must be ``options.decisive``.
        paths: files and folders.
        out: folder for results.
        options: what is read and written.
        model_path: file or folder of the model, for run.json.
        progress: called after every frame.
        on_failure: called for everything that could not be segmented, when it happens.

    Returns:
        What was done, passed over and refused, and where the results lie.

    Raises:
        ReadError: a path that does not exist, a faulty index.csv, or nothing to segment.
        SegmentError: the segmenter comes from no bundle and no model folder, or with other settings.
        StorageError: the disk refuses; frames that were done before are kept.
    """
    options, clock = options or OutputOptions(), clock or SystemClock()
    origin = _origin(segmenter, options)
    inputs = list_inputs(paths, out)
    folder = RunFolder(out, origin.run_digest)
    started = clock.now().isoformat()
    before = folder.register(started)
    facts = _run_facts(origin, options, paths, model_path, started)
    folder.write_run(facts)
    work = _Work(segmenter, origin, folder, options, on_failure)
    total, done = sum(item.frames for item in inputs), 0
    for item in inputs:
        for step in work.segment(item):
            progress(done + min(step, item.frames - 1), total, item.path.name)
        done += item.frames
        progress(done, total, item.path.name)
    frames, objects, parquet = write_run_tables(folder)
    report = Report(
        folder=folder.path,
        run_digest=origin.run_digest,
        supersedes=before,
        segmented=len(work.times_ms),
        skipped=work.skipped,
        frames=frames,
        objects=objects,
        ms_per_frame=statistics.median(work.times_ms) if work.times_ms else None,
        failed=tuple(work.failed),
        parquet=parquet,
    )
    folder.write_run(facts | _end_facts(report, folder.superseded(), clock.now().isoformat()))
    return report


class _Work:
    """Goes through the frames of the inputs, one by one."""

    def __init__(
        self,
        segmenter: Segmenter,
        origin: Origin,
        folder: RunFolder,
        options: OutputOptions,
        on_failure: Callable[[Failure], None],
    ) -> None:
        self.times_ms: list[float] = []
        self.skipped = 0
        self.failed: list[Failure] = []
        self._segmenter = segmenter
        self._writer = FrameWriter(folder, origin, options.contours, options.overlays)
        self._reading = Reading(segmenter.spec.channels, options.channels, options.pixel_size_um)
        self._on_failure = on_failure

    def segment(self, item: Input) -> Iterator[int]:
        """Segment what is not done yet of one file; yields the number of frames that are behind it."""
        start = self.skipped
        try:
            for number, loaded in enumerate(load_frames(item, self._reading, self._wanted), start=1):
                self._one(loaded)
                yield number + self.skipped - start
        except (ReadError, SegmentError) as e:
            self._fail(item.source, e)

    def _wanted(self, identity: InputIdentity) -> bool:
        done = self._writer.is_done(identity)
        self.skipped += done
        return not done

    def _one(self, loaded: LoadedFrame) -> None:
        try:
            result = self._segmenter.segment(loaded.frame)
        except SegmentError as e:
            self._fail(printable(loaded.frame.source), e)
            return
        self._writer.write(loaded, result, self._segmenter.spec)
        self.times_ms.append(result.timings_ms["total"])

    def _fail(self, source: str, error: CellfleetError) -> None:
        failure = Failure(source, printable(error.message), printable(error.hint))
        self.failed.append(failure)
        self._on_failure(failure)


def _origin(segmenter: Segmenter, options: OutputOptions) -> Origin:
    origin = segmenter.origin
    if origin is None:
        raise SegmentError(
            "results need a run digest, and this segmenter comes from no bundle and no model folder",
            hint="make it with load_segmenter",
        )
    if any(origin.settings.get(name) != value for name, value in options.decisive.items()):
        raise SegmentError(
            "the segmenter was loaded with other channels or another pixel size than the options say",
            hint="pass decisive=options.decisive to load_segmenter",
        )
    return origin


def _run_facts(
    origin: Origin, options: OutputOptions, paths: Sequence[Path], model_path: Path | None, started: str
) -> dict[str, Any]:
    model = None if model_path is None else printable(str(model_path.absolute()))
    return {
        "format_version": RUN_FORMAT,
        **asdict(origin),
        "model_path": model,
        "inputs": [printable(str(p.absolute())) for p in paths],
        "files": list(options.kinds),
        "cellfleet_version": __version__,
        "started": started,
        "finished": None,
    }


def _end_facts(report: Report, superseded: list[str], finished: str) -> dict[str, Any]:
    counts = ("segmented", "skipped", "frames", "objects", "ms_per_frame")
    return {
        **{name: getattr(report, name) for name in counts},
        "failed": [asdict(f) for f in report.failed],
        "superseded_frames": superseded,
        "finished": finished,
    }
