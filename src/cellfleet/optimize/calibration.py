"""Calibration data: training frames exactly as the network sees them in the runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle.spec import ModelSpec
from cellfleet.errors import OptimizeError
from cellfleet.ports import ProgressFn, SystemClock
from cellfleet.runtime.maps import make_maps

if TYPE_CHECKING:
    from cellfleet.data import DataSetVersion, Entry, Frame

Floats = NDArray[np.float32]
Inputs = dict[str, Floats]

TILE_PX = 512
"""Frames with a longer side on the model's grid give their middle tile only, so that memory stays small."""


def choose_frames(data: DataSetVersion, count: int) -> list[Entry]:
    """Training frames for calibration: spread evenly over the strata and, within them, over the ids.

    Args:
        data: the data set version.
        count: how many at most.

    Raises:
        OptimizeError: the version has no training frames.
    """
    entries = sorted(data.split("train"), key=lambda e: (e.stratum, e.id))
    if not entries:
        raise OptimizeError(
            f"the data set version {data.digest[:12]} has no training frames to calibrate on",
            hint="name the manifest that the model was trained on",
        )
    count = min(count, len(entries))
    return [entries[(2 * i + 1) * len(entries) // (2 * count)] for i in range(count)]


def network_inputs(spec: ModelSpec, frame: Frame) -> Inputs:
    """What the runtime hands to the network for a frame: ``image`` [1,C,H,W], ``mean`` and ``std`` [1,C], float32.

    Raises:
        SegmentError: a channel is missing, or the pixel size is unknown and the model demands it.
    """
    recorder = _Recorder(spec)
    make_maps(spec, recorder, frame, tile_px=TILE_PX, clock=SystemClock())
    return recorder.seen[len(recorder.seen) // 2]


class _Recorder:
    """An engine that notes what it is given and answers zeros."""

    name = "recorder"
    version = "1"

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self.seen: list[Inputs] = []

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        self.seen.append({"image": image, "mean": mean, "std": std})
        return {h.name: np.zeros((1, h.channels, *image.shape[2:]), np.float32) for h in self._spec.heads}


class FrameReader:
    """A calibration data reader of ``onnxruntime.quantization``: one frame after the other, read when it is needed."""

    def __init__(
        self, spec: ModelSpec, data: DataSetVersion, entries: Sequence[Entry], progress: ProgressFn, total: int
    ) -> None:
        self._spec = spec
        self._data = data
        self._entries = entries
        self._progress = progress
        self._total = total
        self._range: Iterator[int] = iter(range(len(entries)))

    def __len__(self) -> int:
        return len(self._entries)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give frames ``start_index`` to ``end_index`` next."""
        self._range = iter(range(start_index, end_index))

    def get_next(self) -> Inputs | None:
        """The inputs of the next frame, None after the last."""
        number = next(self._range, None)
        if number is None:
            return None
        entry = self._entries[number]
        self._progress(number, self._total, f"calibrating on {entry.id}")
        return network_inputs(self._spec, self._data.load_frame(entry))
