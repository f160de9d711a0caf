"""What a program is judged with: a bundle, its golden frames as raw files, and running programs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import tifffile
from conformance.program import Facts, Program, Start, require

from cellfleet.bundle import open_bundle
from cellfleet.canonical import sha256_file
from cellfleet.runtime.selftest import least_scores


class Bench:
    """Shares one running program among promises that leave it running.

    Args:
        start: starts the program with arguments.
        bundle: what it is to work with.
        folder: empty; frames and results go there.
        timeout_s: longest wait for a line.
    """

    def __init__(self, start: Start, bundle: Path, folder: Path, timeout_s: float) -> None:
        self._start, self.bundle, self.folder, self._timeout_s = start, bundle, folder, timeout_s
        self.sha256 = sha256_file(bundle)
        self._opened = open_bundle(bundle)
        self.golden = self._opened.golden()
        self._shared: Program | None = None
        self._experiments = itertools.count(1)
        self.ready: Facts = {}

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[Program]:
        """A program of its own, started with these arguments; ended in any case."""
        program = Program(self._start(arguments), self._timeout_s)
        try:
            yield program
        finally:
            program.kill()

    def new(self) -> contextlib.AbstractContextManager[Program]:
        """A program of its own with the bundle; its first line is not read yet."""
        return self.started("--bundle", str(self.bundle))

    @contextlib.contextmanager
    def shared(self) -> Iterator[Program]:
        """A program that is ready; whoever breaks a promise ends it."""
        if self._shared is None:
            self._shared = Program(self._start(("--bundle", str(self.bundle))), self._timeout_s)
            self.ready = self._shared.first_line()
            require(self.ready["event"] == "ready", f"the program refuses the bundle: {self.ready}")
        try:
            yield self._shared
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the shared program."""
        if self._shared is not None:
            self._shared.kill()
            self._shared = None

    def least(self, variant: str) -> dict[str, float | None]:
        """What the bundle demands of a variant: ``ap50`` and ``agreement``; None for a variant that it does not have."""
        known = next((v for v in self._opened.variants if v.name == variant), None)
        least = least_scores(self._opened, known) if known is not None else (None, None)
        return dict(zip(("ap50", "agreement"), least, strict=True))

    def out(self) -> Path:
        """A results folder that is not there yet, of a new experiment."""
        return self.folder / "results" / f"e{next(self._experiments):05d}"

    def frame(self, out: Path, index: int = 0) -> Facts:
        """A request for a golden frame, written as a raw file without a pixel size.

        Args:
            out: results folder; its name is the experiment's.
            index: of the frame in the experiment; golden frames repeat.
        """
        golden = self.golden[index % len(self.golden)]
        raw = self.folder / "frames" / out.name / f"f{index:05d}.tif"
        raw.parent.mkdir(parents=True, exist_ok=True)
        pixels = golden.pixels if len(golden.channels) > 1 else golden.pixels[0]
        tifffile.imwrite(raw, pixels, photometric="minisblack", metadata=None)
        facts = {
            "event": "taken", "experiment": out.name, "frame": raw.stem, "index": index, "well": "B3", "field": 1,
            "time_s": 60.0 * index, "taken_at": "2026-01-31T12:00:00Z", "sha256": sha256_file(raw),
            "bytes": raw.stat().st_size, "problem": "",
        }  # fmt: skip
        return {
            "do": "segment", "frame": str(raw), "facts": facts, "channels": list(golden.channels),
            "pixel_size_um": golden.pixel_size_um, "default_pixel_size_um": None, "out": str(out), "overlay": False,
            "thumbnail": "",
        }  # fmt: skip
