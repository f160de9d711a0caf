"""Golden frames of a bundle: crops of validation frames, chosen by rule, with the labels of every variant on this machine."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle import GoldenFrame, ModelFolder
from cellfleet.config.model import BundleSection, SegmentSection
from cellfleet.data import DataSetVersion, Entry
from cellfleet.errors import EvaluateError
from cellfleet.ports import ProgressFn, silent
from cellfleet.runtime.loader import load_segmenter
from cellfleet.runtime.objects import compact_labels
from cellfleet.runtime.selftest import score_golden

_WINDOWS = 4


def choose_golden(data: DataSetVersion, section: BundleSection) -> list[GoldenFrame]:
    """Crops of validation frames, at least one of every stratum; the same for the same data set version.

    A crop is the window with the most cells among a few along both axes, at most ``golden_px`` wide and high.

    Raises:
        EvaluateError: there is no validation frame with a cell.
    """
    frames: list[GoldenFrame] = []
    for entry in _spread(data.split("validation"), section.golden_frames):
        pixels, labels = data.load_frame(entry).pixels, data.load_mask(entry)
        rows, columns = _fullest_window(labels, section.golden_px)
        truth = _compact(labels[rows, columns])
        frames.append(
            GoldenFrame(
                name=_name(len(frames) + 1, entry.id),
                pixels=np.ascontiguousarray(pixels[:, rows, columns]),
                channels=entry.channels,
                pixel_size_um=entry.pixel_size_um,
                stratum=entry.stratum,
                truth=truth,
                expected={},
            )
        )
    if not any(int(f.truth.max(initial=0)) for f in frames):
        raise EvaluateError(
            "the validation split has no frame with a cell, so a bundle would have no golden frame",
            hint="freeze a data set version with cells in its validation split",
        )
    return frames


def expect(
    folder: ModelFolder, golden: list[GoldenFrame], section: BundleSection, progress: ProgressFn = silent
) -> tuple[ModelFolder, list[GoldenFrame]]:
    """Run every variant on the golden frames and note its labels and their AP@0.5.

    Returns:
        The model folder whose variants know their AP@0.5 on golden frames and the least that a device must reach
        (``golden_margin_ap50`` below it); and the golden frames with expected labels. Nothing is written.

    Raises:
        EngineError: the engine of a variant is not installed.
    """
    expected: list[dict[str, NDArray[Any]]] = [{} for _ in golden]
    for done, variant in enumerate(folder.variants):
        segmenter = load_segmenter(folder, variant.name, SegmentSection())
        found = score_golden(segmenter, golden)
        for known, frame in zip(expected, found.frames, strict=True):
            known[variant.name] = compact_labels(frame.labels)
        seen = round(found.ap50, 6)
        least = round(max(0.0, seen - section.golden_margin_ap50), 6)
        folder = folder.with_variant(variant.model_copy(update={"golden_ap50": seen, "least_golden_ap50": least}))
        progress(done + 1, len(folder.variants), variant.name)
    return folder, [replace(f, expected=e) for f, e in zip(golden, expected, strict=True)]


def _spread(entries: list[Entry], count: int) -> list[Entry]:
    """At least one entry of every stratum, then turn by turn; within a stratum evenly spread over the sorted entries."""
    by_stratum: dict[str, list[Entry]] = {}
    for entry in entries:
        by_stratum.setdefault(entry.stratum, []).append(entry)
    wanted = max(count, len(by_stratum))
    share = -(-wanted // max(1, len(by_stratum)))
    picks = [_evenly(group, share) for _, group in sorted(by_stratum.items())]
    turns = itertools.zip_longest(*picks)
    return [e for turn in turns for e in turn if e is not None][:wanted]


def _evenly(entries: list[Entry], count: int) -> list[Entry]:
    n = min(count, len(entries))
    return [entries[(2 * i + 1) * len(entries) // (2 * n)] for i in range(n)]


def _fullest_window(labels: NDArray[np.uint32], side: int) -> tuple[slice, slice]:
    best, most = (slice(0, side), slice(0, side)), -1
    for rows, columns in itertools.product(_starts(labels.shape[0], side), _starts(labels.shape[1], side)):
        count = len(np.unique(labels[rows, columns]))
        if count > most:
            best, most = (rows, columns), count
    return best


def _starts(length: int, side: int) -> list[slice]:
    free = max(0, length - side)
    starts = sorted({free * i // (_WINDOWS - 1) for i in range(_WINDOWS)})
    return [slice(s, min(length, s + side)) for s in starts]


def _compact(labels: NDArray[np.uint32]) -> NDArray[Any]:
    """Labels 1..n in ascending order of the old ones; cells cut by the window's edge stay, as they are seen."""
    values = np.unique(labels)
    numbers = np.searchsorted(values, labels).astype(np.uint32) + np.uint32(values[0] != 0)
    return compact_labels(numbers)


def _name(number: int, entry_id: str) -> str:
    return f"{number:02d}-{re.sub(r'[^A-Za-z0-9]+', '-', entry_id).strip('-')[:40] or 'frame'}"
