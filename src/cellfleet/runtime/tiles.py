"""How a large frame is cut into overlapping tiles so that the network's maps come out as for the whole frame.

A tile has a core, which it is responsible for, and a halo, which only gives context. Every tile starts at a multiple of
the network's stride, so pooling sees the same grid as in the whole frame; the halo is at least half the receptive
field, so no core pixel sees a tile's edge. Where a tile ends at the frame's own edge, the padding inside the graph is
the padding of the whole frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels: ``core`` is kept, ``start`` to ``stop`` goes through the network."""

    start: int
    core_start: int
    core_stop: int
    stop: int

    @property
    def keep(self) -> slice:
        """The core as seen from the tile's own start."""
        return slice(self.core_start - self.start, self.core_stop - self.start)


@dataclass(frozen=True)
class Tile:
    """One tile: a span of rows and a span of columns."""

    y: Span
    x: Span


def tile_spans(length: int, *, tile_px: int, stride: int, halo_px: int) -> list[Span]:
    """Cut one axis into spans with cores of equal length (the last may be shorter), at most about ``tile_px`` long.

    Args:
        length: pixels along the axis, at least 1.
        tile_px: greatest length of a core; rounded down to a multiple of ``stride``, at least one stride.
        stride: every span starts at a multiple of this.
        halo_px: context on both sides; rounded up to a multiple of ``stride``.

    Returns:
        Spans whose cores cover the axis once; one span without halo when ``length <= tile_px``.
    """
    if length <= tile_px:
        return [Span(0, 0, length, length)]
    limit = max(stride, tile_px // stride * stride)
    core = ceil(ceil(length / ceil(length / limit)) / stride) * stride
    halo = ceil(halo_px / stride) * stride
    starts = range(0, length, core)
    return [Span(max(0, s - halo), s, min(s + core, length), min(s + core + halo, length)) for s in starts]


def cut(height: int, width: int, *, tile_px: int, stride: int, halo_px: int) -> list[Tile]:
    """Cut a frame into tiles, row by row; a frame with no side above ``tile_px`` is one tile."""
    rows = tile_spans(height, tile_px=tile_px, stride=stride, halo_px=halo_px)
    columns = tile_spans(width, tile_px=tile_px, stride=stride, halo_px=halo_px)
    return [Tile(y, x) for y in rows for x in columns]
