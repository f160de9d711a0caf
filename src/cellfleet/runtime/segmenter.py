"""Segmenter: a ModelSpec, an engine and a frame in; a Segmentation out. Training, evaluation and devices use this path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle.spec import ModelSpec
from cellfleet.errors import SegmentError
from cellfleet.monitor import FrameFlag, output_features, watch_image
from cellfleet.ports import Clock, SystemClock
from cellfleet.runtime.engines import Engine
from cellfleet.runtime.maps import Maps, make_maps, select_channels
from cellfleet.runtime.objects import measure_objects, objects_from_maps, threshold_of

if TYPE_CHECKING:
    from cellfleet.data import Frame

Table = dict[str, NDArray[Any]]
_BAND_ROWS = 256


@dataclass(frozen=True)
class Origin:
    """Which model, engine and settings make the masks.

    Attributes:
        model, model_version: name and version of the model.
        model_sha256: SHA-256 of the bundle, or the digest of a model folder's description.
        variant: ``engine/precision``.
        engine, engine_version: the library that runs the network.
        settings: everything else that decides a mask; plain JSON data.
        run_digest: digest of all of the above.
        reason: why this variant.
    """

    model: str
    model_version: str
    model_sha256: str
    variant: str
    engine: str
    engine_version: str
    settings: dict[str, Any]
    run_digest: str
    reason: str


@dataclass(frozen=True)
class Segmentation:
    """The result for one frame.

    Attributes:
        labels: uint32 [H,W], 0 is background, objects are 1..count.
        table: column -> array of length count: ``id``, ``area_px``, ``area_um2`` (NaN when the pixel size is unknown),
            ``centroid_y_px``, ``centroid_x_px``, ``bbox_y0``, ``bbox_x0``, ``bbox_y1``, ``bbox_x1`` (end-exclusive),
            ``eccentricity``, ``mean_intensity`` (of the model's first channel; further channels as
            ``mean_intensity_<channel>``), ``mean_probability``, and ``class`` when the model has a ``classes`` head.
        confluence_percent: pixels whose foreground probability reaches the model's threshold, in percent of the frame.
        count: number of objects.
        per_mm2: objects per square millimetre; None when the pixel size is unknown.
        pixel_size_um: known or assumed; None when unknown.
        flags: what a reader of the numbers should know, each with its reason.
        timings_ms: stage -> milliseconds: ``prepare``, ``network``, ``resample``, ``objects``, ``measure``, ``watch``,
            ``total``.
        run_digest: digest of all that decided this mask; empty for a network that is in no bundle or model folder yet.
        features: quality of the image and statistics of the output (``cellfleet.monitor``); name -> number or None.
    """

    labels: NDArray[np.uint32]
    table: Table
    confluence_percent: float
    count: int
    per_mm2: float | None
    pixel_size_um: float | None
    flags: tuple[FrameFlag, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)
    run_digest: str = ""
    features: dict[str, float | None] = field(default_factory=dict)


class Segmenter:
    """Segments frames with one model in one engine.

    Attributes:
        spec: the model.
        engine: the engine that runs its network.
        tile_px: frames with a longer side on the model's grid are cut into tiles of about this side, plus halo.
        origin: which model, engine and settings; None for a network that is in no bundle or model folder yet.
    """

    def __init__(
        self,
        spec: ModelSpec,
        engine: Engine,
        *,
        tile_px: int = 1024,
        origin: Origin | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.spec = spec
        self.engine = engine
        self.tile_px = tile_px
        self.origin = origin
        self._clock: Clock = clock or SystemClock()

    def maps(self, frame: Frame) -> Maps:
        """Run the network on a frame.

        Args:
            frame: uint8 or uint16 pixels [C,H,W] with the model's channels by name.

        Returns:
            The quantised maps on the frame's own grid. They need 2 bytes per pixel and head, besides one tile.

        Raises:
            SegmentError: a channel is missing, the pixel size is unknown and demanded, or the network gives no numbers.
            EngineError: the engine failed.
        """
        return make_maps(self.spec, self.engine, frame, tile_px=self.tile_px, clock=self._clock)

    def segment(self, frame: Frame) -> Segmentation:
        """Segment a frame: maps, objects, measurements.

        Raises:
            SegmentError: as for ``maps``; also when the model has no foreground or no distance head.
            EngineError: the engine failed.
        """
        start = self._clock.monotonic_s()
        self._check_heads()
        maps = self.maps(frame)
        foreground, distance = maps.foreground, maps.distance
        maps.distance = None
        assert foreground is not None
        assert distance is not None
        t0 = self._clock.monotonic_s()
        labels = objects_from_maps(foreground, distance, self.spec.objects, maps.scale)
        del distance
        t1 = self._clock.monotonic_s()
        table = self._measure(labels, foreground, maps, frame)
        confluence = _confluence_percent(foreground, self.spec.objects.foreground_threshold)
        t2 = self._clock.monotonic_s()
        features, flags = self._watch(frame, table, foreground, maps.pixel_size_um)
        t3 = self._clock.monotonic_s()
        timings = maps.timings_ms | {
            "objects": 1e3 * (t1 - t0),
            "measure": 1e3 * (t2 - t1),
            "watch": 1e3 * (t3 - t2),
            "total": 1e3 * (t3 - start),
        }
        count = len(table["id"])
        return Segmentation(
            labels=labels,
            table=table,
            confluence_percent=confluence,
            count=count,
            per_mm2=_per_mm2(count, labels.size, maps.pixel_size_um),
            pixel_size_um=maps.pixel_size_um,
            flags=maps.flags + flags,
            timings_ms=timings,
            run_digest=self.origin.run_digest if self.origin else "",
            features=features,
        )

    def _watch(
        self, frame: Frame, table: Table, foreground: NDArray[np.uint16], pixel_size_um: float | None
    ) -> tuple[dict[str, float | None], tuple[FrameFlag, ...]]:
        image, flags = watch_image(select_channels(self.spec, frame)[0], self.spec.channels[0])
        features = {**image, **output_features(table, foreground, pixel_size_um)}
        return features, flags

    def _check_heads(self) -> None:
        absent = [kind for kind in ("foreground", "distance") if self.spec.head(kind) is None]
        if absent:
            raise SegmentError(
                f"the model {self.spec.name} has no {' and no '.join(absent)} head, so objects cannot be cut from its maps",
                hint="use Segmenter.maps, or a model with both heads",
            )

    def _measure(self, labels: NDArray[np.uint32], foreground: NDArray[np.uint16], maps: Maps, frame: Frame) -> Table:
        channels = select_channels(self.spec, frame)
        raw = measure_objects(labels, channels[0], foreground)
        count = len(raw["area_px"])
        side = maps.pixel_size_um if maps.pixel_size_um is not None else np.nan
        table: Table = {
            "id": np.arange(1, count + 1, dtype=np.uint32),
            "area_px": raw["area_px"],
            "area_um2": raw["area_px"] * float(side) ** 2,
            "centroid_y_px": raw["centroid_y"],
            "centroid_x_px": raw["centroid_x"],
            **{
                name: raw[name]
                for name in ("bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1", "eccentricity", "mean_intensity")
            },
        }
        for name, channel in zip(self.spec.channels[1:], channels[1:], strict=True):
            table[f"mean_intensity_{name}"] = measure_objects(labels, channel, foreground)["mean_intensity"]
        table["mean_probability"] = raw["mean_probability"]
        head = self.spec.head("classes")
        if head is not None and maps.classes is not None:
            winner = majority_class(labels, maps.classes, count, len(head.classes))
            table["class"] = np.array(head.classes, dtype=np.str_)[winner]
        return table


def majority_class(
    labels: NDArray[np.uint32], classes: NDArray[np.uint8], count: int, class_count: int
) -> NDArray[np.intp]:
    """The most frequent class index of each object's pixels; of equally frequent ones the lowest index.

    Args:
        labels: uint32 [H,W], 0..count.
        classes: uint8 [H,W], class index of each pixel.
        count: number of objects.
        class_count: number of classes.
    """
    votes = np.zeros((count + 1) * class_count, np.int64)
    for y in range(0, labels.shape[0], _BAND_ROWS):  # in bands: the index needs 8 bytes per pixel
        index = labels[y : y + _BAND_ROWS].astype(np.int64) * class_count + classes[y : y + _BAND_ROWS]
        votes += np.bincount(index.ravel(), minlength=votes.size)
    winner: NDArray[np.intp] = votes.reshape(count + 1, class_count)[1:].argmax(axis=1)
    return winner


def _confluence_percent(foreground: NDArray[np.uint16], threshold: float) -> float:
    level = threshold_of(threshold)
    bands = range(0, foreground.shape[0], _BAND_ROWS)
    covered = sum(int(np.count_nonzero(foreground[y : y + _BAND_ROWS] >= level)) for y in bands)
    return 100.0 * covered / foreground.size


def _per_mm2(count: int, pixels: int, pixel_size_um: float | None) -> float | None:
    return None if pixel_size_um is None else count / (pixels * pixel_size_um**2 * 1e-6)
