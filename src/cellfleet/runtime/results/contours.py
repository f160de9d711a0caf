"""Outlines of objects as GeoJSON."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.canonical import canonical_bytes
from cellfleet.runtime.segmenter import Table


def contours_geojson(labels: NDArray[np.uint32], table: Table, properties: dict[str, Any]) -> bytes:
    """Outlines of all objects as a GeoJSON FeatureCollection (RFC 7946 in form; coordinates are pixels, not degrees).

    Args:
        labels: uint32 [H,W].
        table: an object table with ``id`` and ``bbox_*``.
        properties: stored beside the features under ``cellfleet``.

    Returns:
        UTF-8 JSON. Each feature has the object's ``id`` and a MultiPolygon or Polygon with holes; x goes right, y goes
        down, the frame's top left corner is (0, 0) and the pixel of row r and column c covers [c, c+1] x [r, r+1].
        Outlines run a quarter of a pixel inside the object's edge, so that even one pixel has an outline.
    """
    features = []
    boxes = np.stack([table[f"bbox_{side}"] for side in ("y0", "x0", "y1", "x1")], axis=1)
    for index, (y0, x0, y1, x1) in zip(table["id"].tolist(), boxes.tolist(), strict=True):
        mask = (labels[y0:y1, x0:x1] == index).astype(np.uint8)
        polygons = outline(mask, y0, x0)
        feature = {"type": "Feature", "id": index, "geometry": _geometry(polygons), "properties": {"id": index}}
        features.append(canonical_bytes(feature))  # as text it takes a tenth of the memory
    height, width = labels.shape
    meta = canonical_bytes({**properties, "height": height, "width": width, "units": "px"})
    return b'{"cellfleet":%b,"features":[%b],"type":"FeatureCollection"}' % (meta, b",".join(features))


def outline(mask: NDArray[np.uint8], y0: int, x0: int) -> list[list[list[list[float]]]]:
    """Polygons of a mask: per connected part its outer ring, then the rings of its holes; closed, in frame coordinates."""
    doubled = cv2.copyMakeBorder(np.repeat(np.repeat(mask, 2, 0), 2, 1), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    rings, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if hierarchy is None:
        return []
    links = np.asarray(hierarchy).reshape(-1, 4)
    polygons = []
    for i, (_, _, first, parent) in enumerate(links.tolist()):
        if parent >= 0:
            continue
        parts = [_ring(rings[i], y0, x0)]
        child = int(first)
        while child >= 0:
            parts.append(_ring(rings[child], y0, x0))
            child = int(links[child][0])
        polygons.append(parts)
    return polygons


def _ring(points: Any, y0: int, x0: int) -> list[list[float]]:
    xy = (np.asarray(points).reshape(-1, 2) - 0.5) / 2.0 + (x0, y0)  # minus the border, plus half a pixel
    ring: list[list[float]] = xy.tolist()
    return [*ring, ring[0]]


def _geometry(polygons: list[list[list[list[float]]]]) -> dict[str, Any]:
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}
