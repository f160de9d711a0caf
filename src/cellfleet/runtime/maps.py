"""From a frame to the network's maps: grid, moments, tiles, network, quantisation (steps 2 to 6 of a frame's path)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle.spec import ModelSpec
from cellfleet.errors import EngineError, SegmentError
from cellfleet.monitor import FrameFlag
from cellfleet.ports import Clock
from cellfleet.runtime.engines import Engine
from cellfleet.runtime.grid import Grid, model_grid
from cellfleet.runtime.objects import frame_moments, quantise, resample_labels, resample_pixels
from cellfleet.runtime.tiles import Tile, cut

if TYPE_CHECKING:
    from cellfleet.data import Frame

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass
class Maps:
    """The network's maps on the frame's own grid.

    Attributes:
        foreground: uint16 [H,W], probability of foreground times 65535; None when the model has no such head.
        distance: uint16 [H,W], normalised distance times 65535; None when the model has no such head.
        classes: uint8 [H,W], index of the most probable class; None when the model has no such head.
        scale: pixels of the frame per pixel of the model's grid, along one side.
        pixel_size_um: of the frame, known or assumed; None when unknown.
        flags: what was assumed of the pixel size.
        timings_ms: stage -> milliseconds.
    """

    foreground: NDArray[np.uint16] | None
    distance: NDArray[np.uint16] | None
    classes: NDArray[np.uint8] | None
    scale: float
    pixel_size_um: float | None
    flags: tuple[FrameFlag, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)


def make_maps(spec: ModelSpec, engine: Engine, frame: Frame, *, tile_px: int, clock: Clock) -> Maps:
    """Run the network on a frame, in tiles when a side is longer than ``tile_px`` on the model's grid.

    Raises:
        SegmentError: a channel is missing, the pixel size is unknown and demanded, or the network gives no numbers.
        EngineError: the engine failed, or its outputs are not those of the spec.
    """
    t0 = clock.monotonic_s()
    own = select_channels(spec, frame)
    grid = model_grid(spec, own.shape[1], own.shape[2], frame.pixel_size_um, str(frame.source))
    pixels = _on_grid(own, grid)
    mean, std = (m[None] for m in frame_moments(pixels))
    t1 = clock.monotonic_s()
    maps = _run_tiles(spec, engine, pixels, mean, std, tile_px)
    del pixels
    t2 = clock.monotonic_s()
    shape = (own.shape[1], own.shape[2])
    for kind in list(maps):
        maps[kind] = _to_frame(maps[kind], shape)
    t3 = clock.monotonic_s()
    return Maps(
        foreground=maps.get("foreground"),
        distance=maps.get("distance"),
        classes=maps.get("classes"),
        scale=grid.scale,
        pixel_size_um=grid.pixel_size_um,
        flags=grid.flags,
        timings_ms={"prepare": 1e3 * (t1 - t0), "network": 1e3 * (t2 - t1), "resample": 1e3 * (t3 - t2)},
    )


def select_channels(spec: ModelSpec, frame: Frame) -> Pixels:
    """The model's channels of a frame, in the model's order: [C,H,W], a view where possible.

    Raises:
        SegmentError: a channel is missing; the message lists what the frame has.
    """
    missing = [c for c in spec.channels if c not in frame.channels]
    if missing:
        raise SegmentError(
            f"{frame.source}: the model needs the channel{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"the frame has {', '.join(frame.channels)}",
            hint=f"name the frame's channels in their order, for example --channels {','.join(spec.channels)}",
        )
    if tuple(frame.channels) == spec.channels:
        return frame.pixels
    return frame.pixels[[frame.channels.index(c) for c in spec.channels]]


def _on_grid(pixels: Pixels, grid: Grid) -> Pixels:
    if not grid.resampled:
        return pixels
    if pixels.dtype == np.uint8:
        return resample_pixels(pixels.astype(np.uint8, copy=False), grid.height, grid.width)
    return resample_pixels(pixels.astype(np.uint16, copy=False), grid.height, grid.width)


def _run_tiles(
    spec: ModelSpec, engine: Engine, pixels: Pixels, mean: NDArray[np.float32], std: NDArray[np.float32], tile_px: int
) -> dict[str, Any]:
    height, width = pixels.shape[1:]
    maps: dict[str, Any] = {}
    for head in spec.heads:
        maps.setdefault(head.kind, np.empty((height, width), np.uint8 if head.kind == "classes" else np.uint16))
    for tile in cut(height, width, tile_px=tile_px, stride=spec.stride, halo_px=spec.halo_px):
        image = pixels[None, :, tile.y.start : tile.y.stop, tile.x.start : tile.x.stop].astype(np.float32)
        outputs = engine.run(image, mean, std)
        for kind, target in maps.items():
            _store(spec, kind, outputs, tile, target)
    return maps


def _store(spec: ModelSpec, kind: str, outputs: dict[str, NDArray[np.float32]], tile: Tile, target: Any) -> None:
    head = spec.head(kind)
    assert head is not None
    values = outputs.get(head.name)
    shape = (1, head.channels, tile.y.stop - tile.y.start, tile.x.stop - tile.x.start)
    if values is None or values.shape != shape:
        got = "absent" if values is None else f"of shape {values.shape}"
        raise EngineError(
            f"the network's output {head.name!r} is {got}; the model promises {shape}",
            hint="the model and its description do not belong together; build or download the bundle again",
        )
    core = values[0, :, tile.y.keep, tile.x.keep]
    area = (slice(tile.y.core_start, tile.y.core_stop), slice(tile.x.core_start, tile.x.core_stop))
    if kind == "classes":
        target[area] = core.argmax(axis=0)
        return
    try:
        target[area] = quantise(np.ascontiguousarray(core[0]))
    except ValueError as e:
        raise SegmentError(
            f"the network's output {head.name!r} holds values that are not numbers",
            hint="the model is damaged or does not fit this engine; choose another variant with --variant",
        ) from e


def _to_frame(values: Any, shape: tuple[int, int]) -> Any:
    """Bring a map back to the frame's grid: probabilities (uint16) are averaged, class indices (uint8) are not."""
    if values.shape == shape:
        return values
    return resample_pixels(values, *shape) if values.dtype == np.uint16 else resample_labels(values, *shape)
