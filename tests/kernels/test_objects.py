"""The kernel that cuts objects: bit for bit a slow reading of docs/architecture.md; close to skimage."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.draw import disk
from skimage.measure import regionprops
from skimage.segmentation import watershed

from cellfleet.bundle.spec import ObjectParams
from cellfleet.errors import SegmentError
from cellfleet.runtime.objects import compact_labels, measure_objects, objects_from_maps, threshold_of

U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
FOUR = [(-1, 0), (1, 0), (0, -1), (0, 1)]
EIGHT = [*FOUR, (-1, -1), (-1, 1), (1, -1), (1, 1)]


def components(mask: NDArray[np.bool_], steps: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Connected components in the raster order of their first pixels."""
    seen, out = np.zeros_like(mask), []
    for y0, x0 in np.argwhere(mask).tolist():
        start: tuple[int, int] = (y0, x0)
        if seen[start]:
            continue
        seen[start] = True
        queue, pixels = deque([start]), []
        while queue:
            y, x = queue.popleft()
            pixels.append((y, x))
            for dy, dx in steps:
                p = (y + dy, x + dx)
                if 0 <= p[0] < mask.shape[0] and 0 <= p[1] < mask.shape[1] and mask[p] and not seen[p]:
                    seen[p] = True
                    queue.append(p)
        out.append(pixels)
    return out


def reference(foreground: U16, distance: U16, fg: int, seed: int, passes: int, min_seed: int, min_area: int) -> U32:
    """The algorithm of docs/architecture.md, step by step, without a thought of speed."""
    d = distance.astype(np.int64)
    for _ in range(passes):
        p = np.pad(d, 1, mode="edge")
        rows = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
        d = (rows[:-2] + 2 * rows[1:-1] + rows[2:] + 8) >> 4
    inside = foreground >= fg
    best = np.full(d.shape, 65535, np.int64)
    labels = np.zeros(d.shape, np.uint32)
    seeds = [c for c in components(inside & (d >= seed), EIGHT) if len(c) >= min_seed]
    heap = []
    for number, pixels in enumerate(seeds, 1):
        heap += [(0, number, y, x) for y, x in pixels]
    heapq.heapify(heap)
    while heap:
        length, number, y, x = heapq.heappop(heap)
        if labels[y, x] or length > 65534:
            continue
        labels[y, x], best[y, x] = number, length
        for dy, dx in EIGHT:
            q = (y + dy, x + dx)
            if 0 <= q[0] < d.shape[0] and 0 <= q[1] < d.shape[1] and inside[q] and not labels[q]:
                heapq.heappush(heap, (length + (7 if dy and dx else 5), number, *q))
    for number in range(1, len(seeds) + 1):
        if 0 < (labels == number).sum() < min_area:
            labels[labels == number] = 0
    return renumbered(holes_filled(labels))


def holes_filled(labels: U32) -> U32:
    out = labels.copy()
    for pixels in components(labels == 0, FOUR):
        if any(y in (0, labels.shape[0] - 1) or x in (0, labels.shape[1] - 1) for y, x in pixels):
            continue
        around = {int(labels[y + dy, x + dx]) for y, x in pixels for dy, dx in EIGHT} - {0}
        if len(around) == 1:
            for p in pixels:
                out[p] = next(iter(around))
    return out


def renumbered(labels: U32) -> U32:
    order = list(dict.fromkeys(int(v) for v in labels.ravel() if v))
    table = np.zeros(int(labels.max(initial=0)) + 1, np.uint32)
    table[order] = np.arange(1, len(order) + 1)
    return table[labels]


shapes = st.tuples(st.integers(1, 14), st.integers(1, 14))
maps = shapes.flatmap(
    lambda shape: st.tuples(
        *(hnp.arrays(np.uint16, shape, elements=st.sampled_from([0, 9000, 30000, 50000, 65535])) for _ in "fd")
    )
)


@given(maps, st.integers(0, 3), st.integers(0, 4), st.integers(0, 6), st.sampled_from([9000, 30000]))
@settings(max_examples=150, deadline=None)
def test_equal_to_the_reference(pair: tuple[U16, U16], passes: int, min_seed: int, min_area: int, seed: int) -> None:
    foreground, distance = pair
    params = ObjectParams(
        foreground_threshold=20000 / 65535, seed_threshold=seed / 65535,
        smooth_passes=passes, min_seed_area_px=min_seed, min_area_px=min_area,
    )  # fmt: skip
    expected = reference(foreground, distance, 20000, seed, passes, min_seed, min_area)
    np.testing.assert_array_equal(objects_from_maps(foreground, distance.copy(), params), expected)


def discs(side: int = 256) -> tuple[U16, U16, U32]:
    """Touching discs with soft edges: foreground, distance, truth."""
    rng = np.random.default_rng(1)
    truth, distance = np.zeros((side, side), np.uint32), np.zeros((side, side))
    y, x = np.mgrid[:side, :side]
    for number in range(1, 41):
        cy, cx, r = rng.uniform(10, side - 10), rng.uniform(10, side - 10), rng.uniform(8, 16)
        rr, cc = disk((cy, cx), r, shape=truth.shape)
        free = truth[rr, cc] == 0
        truth[rr[free], cc[free]] = number
        distance = np.where(truth == number, 1 - np.hypot(y - cy, x - cx) / r, distance)
    foreground = (truth > 0).astype(np.float64)
    return (foreground * 65535).astype(np.uint16), (distance.clip(0, 1) * 65535).astype(np.uint16), truth


def test_close_to_a_watershed_from_the_same_seeds() -> None:
    foreground, distance, _ = discs()
    params = ObjectParams(
        foreground_threshold=0.5, seed_threshold=0.5, smooth_passes=0, min_seed_area_px=1, min_area_px=1
    )
    ours = objects_from_maps(foreground, distance.copy(), params)
    markers = np.zeros(ours.shape, np.int32)
    for number, pixels in enumerate(components((foreground >= 32768) & (distance >= 32768), EIGHT), 1):
        markers[tuple(np.array(pixels).T)] = number
    # A flat landscape: skimage floods from the seeds at equal speed, which is the nearest seed but for the metric.
    theirs = watershed(np.zeros(ours.shape), markers, mask=foreground >= 32768)
    assert ours.max() == theirs.max() > 20
    assert ((ours > 0) == (theirs > 0)).mean() > 0.999
    same = 0
    for i in range(1, int(theirs.max()) + 1):
        mine, its = ours == ours[markers == i][0], theirs == i
        same += int((mine & its).sum() > 0.9 * (mine | its).sum())
    assert same >= 0.9 * theirs.max()


def eccentricity(mu: NDArray[np.float64]) -> float:
    """From central moments, every pixel a square of side 1 (which adds 1/12 to both variances)."""
    tensor = np.array([[mu[2, 0], mu[1, 1]], [mu[1, 1], mu[0, 2]]]) / mu[0, 0] + np.eye(2) / 12
    minor, major = np.linalg.eigvalsh(tensor)
    return float(np.sqrt(1 - minor / major))


def test_measured_as_skimage_measures() -> None:
    foreground, _, truth = discs()
    labels = renumbered(truth)
    intensity = np.random.default_rng(2).integers(0, 65536, labels.shape).astype(np.uint16)
    ours = measure_objects(labels, intensity, foreground)
    for i, r in enumerate(regionprops(labels.astype(np.int32), intensity_image=intensity)):
        assert ours["area_px"][i] == r.area
        assert (ours["centroid_y"][i], ours["centroid_x"][i]) == pytest.approx(r.centroid, rel=1e-12)
        assert tuple(int(ours[f"bbox_{k}"][i]) for k in ("y0", "x0", "y1", "x1")) == r.bbox
        assert ours["eccentricity"][i] == pytest.approx(eccentricity(r.moments_central), abs=1e-9)
        assert ours["mean_intensity"][i] == pytest.approx(r.intensity_mean, rel=1e-12)
        assert ours["mean_probability"][i] == pytest.approx(foreground[labels == r.label].mean() / 65535, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("value", [0, 65535])
def test_the_smallest_frames(shape: tuple[int, int], value: int) -> None:
    full = np.full(shape, value, np.uint16)
    params = ObjectParams(
        foreground_threshold=0.5, seed_threshold=0.5, smooth_passes=2, min_seed_area_px=1, min_area_px=1
    )
    labels = objects_from_maps(full, full.copy(), params)
    assert (labels == (1 if value else 0)).all()


def test_more_than_sixteen_bits_of_objects() -> None:
    tile = np.zeros((4, 4), np.uint16)
    tile[:3, :3] = 65535
    full = np.tile(tile, (270, 270))
    params = ObjectParams(
        foreground_threshold=0.5, seed_threshold=0.5, smooth_passes=0, min_seed_area_px=1, min_area_px=1
    )
    labels = objects_from_maps(full, full.copy(), params)
    assert labels.max() == 270 * 270 > 65535
    assert compact_labels(labels).dtype == np.uint32
    assert (measure_objects(labels, full, full)["area_px"] == 9).all()
    assert compact_labels(labels[:40]).dtype == np.uint16


def test_areas_scale_with_the_grid() -> None:
    square = np.zeros((40, 40), np.uint16)
    square[5:15, 5:15] = 65535
    params = ObjectParams(
        foreground_threshold=0.5, seed_threshold=0.5, smooth_passes=0, min_seed_area_px=1, min_area_px=30
    )
    assert objects_from_maps(square, square.copy(), params, scale=1.8).max() == 1  # 97.2 px at least
    assert objects_from_maps(square, square.copy(), params, scale=1.9).max() == 0  # 108.3 px at least


def params_of(**fields: Any) -> ObjectParams:
    """No smoothing, nothing too small, thresholds of one half; ``fields`` override."""
    base = {"foreground_threshold": 0.5, "seed_threshold": 0.5, "smooth_passes": 0}
    return ObjectParams(**(base | {"min_seed_area_px": 1, "min_area_px": 1} | fields))


@pytest.mark.parametrize("field", ["min_area_px", "min_seed_area_px"])
def test_scaled_areas_are_rounded_half_up(field: str) -> None:
    """10 pixels of the model's grid are 2.5 of a frame with pixels twice as wide, so 3 are asked for, not 2."""
    strips = np.array([[65535, 65535, 0, 65535, 65535, 65535]], np.uint16)
    labels = objects_from_maps(strips, strips.copy(), params_of(**{field: 10}), scale=0.5)
    assert labels.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_smoothing_passes_are_scaled_and_rounded_half_up() -> None:
    foreground = np.full((1, 9), 65535, np.uint16)
    distance = np.zeros((1, 9), np.uint16)
    distance[0, 4] = 65535
    # The middle of the kernel (1 2 1) / 4 is 6 / 16 after two passes and 20 / 64 after three.
    for passes, seeds in ((8, 1), (10, 0)):
        params = params_of(smooth_passes=passes, seed_threshold=0.35)
        assert objects_from_maps(foreground, distance.copy(), params, scale=0.5).max() == seeds


def test_the_limits_themselves_are_good() -> None:
    """A pixel at the threshold is foreground, a seed at its threshold is one, and the least areas are allowed."""
    level = threshold_of(0.3)
    params = params_of(foreground_threshold=0.3, seed_threshold=0.3, min_seed_area_px=2, min_area_px=3)
    foreground = np.array([[level, level, level, level - 1]], np.uint16)
    distance = np.array([[level, level, level - 1, level]], np.uint16)
    assert objects_from_maps(foreground, distance, params).tolist() == [[1, 1, 1, 0]]
    one_seed = np.array([[level, level - 1, level - 1, level]], np.uint16)
    assert objects_from_maps(foreground, one_seed, params).max() == 0
    assert objects_from_maps(foreground[:, 1:].copy(), distance[:, :3].copy(), params).max() == 0


def test_paths_longer_than_sixteen_bits_are_not_followed() -> None:
    """A straight step is 5 long, and 65,534 is the longest path: 13,106 steps."""
    line = np.full((1, 13_200), 65535, np.uint16)
    distance = np.zeros_like(line)
    distance[0, 0] = 65535
    labels = objects_from_maps(line, distance, params_of())
    assert int((labels > 0).sum()) == 13_107
    assert labels[0, 13_106] == 1


@pytest.mark.parametrize(("count", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_labels_are_narrow_as_long_as_they_fit(count: int, dtype: type[np.generic]) -> None:
    labels = np.array([[0, count]], np.uint32)
    assert compact_labels(labels).dtype == dtype
    assert compact_labels(labels).tolist() == [[0, count]]


def test_wrong_arrays_are_explained() -> None:
    good = np.zeros((4, 4), np.uint16)
    params = ObjectParams(
        foreground_threshold=0.5, seed_threshold=0.5, smooth_passes=0, min_seed_area_px=1, min_area_px=1
    )
    wrong: list[Any] = [good.astype(np.float32), good[:2].copy(), good[:, ::2], np.zeros((0, 4), np.uint16)]
    for bad in wrong:
        with pytest.raises(SegmentError, match="cannot cut objects"):
            objects_from_maps(good[: bad.shape[0]] if bad.size == 0 else good, bad, params)
    with pytest.raises(SegmentError, match="cannot measure"):
        measure_objects(np.full((4, 4), 2, np.uint32), good, good)


def test_thresholds_round_half_up() -> None:
    """0.5 and 0.3 are 32,767.5 and 19,660.5 of 65,535; half to even would give 32,768 and 19,660."""
    assert [threshold_of(p) for p in (0.0, 0.3, 0.5, 1.0)] == [0, 19661, 32768, 65535]
