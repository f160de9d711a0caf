"""The pixel-size rule: on which grid the network sees a frame, and what is known about a pixel's size."""

from __future__ import annotations

from dataclasses import dataclass

from cellfleet.bundle.spec import ModelSpec
from cellfleet.errors import SegmentError
from cellfleet.monitor import FrameFlag

TOLERANCE = 0.02
"""A frame is resampled when its pixel size is off by more than this part of the model's."""

MAX_GRID_PX = 1_500_000_000
"""Greatest number of pixels on the model's grid; more is a wrong pixel size rather than a frame."""


@dataclass(frozen=True)
class Grid:
    """The model's grid for one frame.

    Attributes:
        height, width: of the frame on the model's grid, in pixels.
        resampled: the frame's own grid is another one.
        scale: pixels of the frame per pixel of the model's grid, along one side.
        pixel_size_um: of the frame: its own, else the assumed one, else None.
        flags: what was assumed.
    """

    height: int
    width: int
    resampled: bool
    scale: float
    pixel_size_um: float | None
    flags: tuple[FrameFlag, ...]


@dataclass(frozen=True)
class GridSize:
    """How large an image is on the model's grid.

    Attributes:
        height, width: in pixels of the model's grid.
        scale: pixels of the image per pixel of the model's grid, along one side; 1.0 when its pixel size is near enough.
    """

    height: int
    width: int
    scale: float


def size_on_grid(
    height: int, width: int, pixel_size_um: float | None, target_um: float | None, source: str
) -> GridSize:
    """The size of an image on the model's grid; training, evaluation and instruments use this rule.

    Args:
        height, width: of the image, in pixels.
        pixel_size_um: of the image; None when unknown.
        target_um: pixel size of the model's grid; None: images go in as they are.
        source: how to name the image in an error.

    Returns:
        The image's own size when a pixel size is None or they differ by at most ``TOLERANCE``; else the scaled size,
        rounded half to even, at least 1 x 1.

    Raises:
        SegmentError: more than ``MAX_GRID_PX`` pixels on the grid, so a pixel size is wrong.
    """
    if target_um is None or pixel_size_um is None or abs(pixel_size_um / target_um - 1.0) <= TOLERANCE:
        return GridSize(height, width, 1.0)
    ratio = pixel_size_um / target_um
    rows, columns = max(1, round(height * ratio)), max(1, round(width * ratio))
    if rows * columns > MAX_GRID_PX:
        raise SegmentError(
            f"{source}: with {pixel_size_um:g} um pixels, {height} x {width} pixels would be {rows} x {columns} on the "
            f"model's grid of {target_um:g} um",
            hint="check the pixel size; give the right one with --pixel-size-um or in index.csv",
        )
    return GridSize(rows, columns, 1.0 / ratio)


def model_grid(spec: ModelSpec, height: int, width: int, pixel_size_um: float | None, source: str) -> Grid:
    """Apply the model's pixel-size rule to a frame.

    Args:
        spec: the model.
        height, width: of the frame, in pixels.
        pixel_size_um: of the frame, or None when unknown.
        source: how to name the frame in an error.

    Raises:
        SegmentError: the pixel size is unknown and the model demands it, or it makes no sense.
    """
    flags: tuple[FrameFlag, ...] = ()
    if pixel_size_um is None:
        if spec.demands_pixel_size:
            raise SegmentError(
                f"{source}: its pixel size is unknown and the model {spec.name} demands it",
                hint="give the pixel size in um, for example --pixel-size-um 0.65",
            )
        pixel_size_um = spec.training_pixel_size_um
        flags = (_unknown(pixel_size_um),)
    size = size_on_grid(height, width, pixel_size_um, spec.target_pixel_size_um, source)
    resampled = (size.height, size.width) != (height, width)
    return Grid(size.height, size.width, resampled, size.scale, pixel_size_um, flags)


def _unknown(assumed: float | None) -> FrameFlag:
    if assumed is None:
        return FrameFlag("pixel-size-unknown", "pixel size unknown: areas are in pixels only")
    return FrameFlag("pixel-size-assumed", f"pixel size unknown: assumed {assumed:g} um")
