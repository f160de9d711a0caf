"""Moments, resampling and quantisation against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cellfleet.errors import SegmentError
from cellfleet.runtime.objects import STD_FLOOR, frame_moments, moments, quantise, resample_labels, resample_pixels

shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
images = st.sampled_from([np.uint8, np.uint16]).flatmap(lambda t: hnp.arrays(t, shapes))


@given(images)
def test_moments_are_those_of_exact_arithmetic(pixels: NDArray[np.uint8]) -> None:
    values = [int(v) for v in pixels.ravel()]
    n, total, squares = len(values), sum(values), sum(v * v for v in values)
    mean, std = moments(pixels)
    assert mean == total / n
    assert std == pytest.approx(((n * squares - total * total) ** 0.5) / n, rel=1e-12, abs=1e-9)


def test_a_constant_frame_has_the_floor_as_its_deviation() -> None:
    mean, std = frame_moments(np.full((2, 5, 5), 65535, np.uint16))
    assert mean.tolist() == [65535, 65535]
    assert std == pytest.approx([STD_FLOOR] * 2)
    assert mean.dtype == std.dtype == np.float32


def triangle(n: int, m: int) -> NDArray[np.float64]:
    """The filter as a matrix [m, n] of exact weights."""
    scale = n / m
    support = max(1.0, scale)
    at = (np.arange(m)[:, None] + 0.5) * scale - (np.arange(n)[None] + 0.5)
    weights = np.maximum(0, 1 - np.abs(at) / support)
    return weights / weights.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


@given(images, st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None)
def test_resampling_is_the_triangle_filter_but_for_rounding(pixels: NDArray[np.uint8], height: int, width: int) -> None:
    out = resample_pixels(pixels, height, width)
    assert out.shape == (height, width)
    assert out.dtype == pixels.dtype
    exact = triangle(pixels.shape[0], height) @ pixels @ triangle(pixels.shape[1], width).T
    # 2^-15 per weight: below one grey value of 8 bits; some of 16 bits.
    assert np.abs(out - exact).max() <= (0.6 if pixels.dtype == np.uint8 else 14)
    if (height, width) == pixels.shape:
        np.testing.assert_array_equal(out, pixels)


def integer_weights(n: int, m: int) -> NDArray[np.int64]:
    """The filter as the kernel's integers [m, n]: 2^15 a row, what rounding leaves over at the first of the largest."""
    out = np.zeros((m, n), np.int64)
    scale = n / m
    support = max(1.0, scale)
    for i in range(m):
        exact = np.maximum(0.0, 1.0 - np.abs(np.arange(n) + 0.5 - (i + 0.5) * scale) / support)
        out[i] = np.floor(exact / exact.sum() * 2**15 + 0.5)
        out[i, out[i].argmax()] += 2**15 - out[i].sum()
    return out


@given(images, st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None)
def test_resampling_gives_the_stated_bits(pixels: NDArray[np.uint8], height: int, width: int) -> None:
    """cpp/include/cellfleet/resample.h: columns first, 8 bits carried times 256, every step rounded half up once."""
    carry = 8 if pixels.dtype == np.uint8 else 0
    rows, columns = integer_weights(pixels.shape[0], height), integer_weights(pixels.shape[1], width)
    half = pixels.astype(np.int64) @ columns.T + (1 << (14 - carry)) >> 15 - carry
    expected = np.minimum(rows @ half + (1 << (14 + carry)) >> 15 + carry, np.iinfo(pixels.dtype).max)
    if (height, width) != pixels.shape:
        np.testing.assert_array_equal(resample_pixels(pixels, height, width), expected)


def test_channels_are_resampled_one_by_one() -> None:
    pixels = np.arange(2 * 6 * 6, dtype=np.uint16).reshape(2, 6, 6)
    out = resample_pixels(pixels, 3, 4)
    np.testing.assert_array_equal(out[1], resample_pixels(pixels[1], 3, 4))


@given(hnp.arrays(np.float32, shapes, elements=st.floats(-2, 2, width=32)))
def test_quantised_as_stated(p: NDArray[np.float32]) -> None:
    expected = np.floor(p * np.float32(65535) + np.float32(0.5)).clip(0, 65535).astype(np.uint16)
    np.testing.assert_array_equal(quantise(p), expected)


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not numbers"):
        quantise(np.array([[0, np.nan]], np.float32))


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 2, 2, 2), np.uint8), np.zeros((0, 3), np.uint8)])
def test_wrong_arrays_are_explained(bad: NDArray[np.uint8]) -> None:
    with pytest.raises(SegmentError) as caught:
        moments(bad)
    assert caught.value.hint


def test_every_pixel_takes_the_label_at_its_centre() -> None:
    """Centres of 5 pixels over 3 lie at 0.3, 0.9, 1.5, 2.1, 2.7, of 2 at 0.75 and 2.25; on a border the next one counts."""
    three = np.array([[1, 2, 3]], np.uint32)
    assert resample_labels(three, 1, 5).tolist() == [[1, 1, 2, 3, 3]]
    assert resample_labels(three, 1, 2).tolist() == [[1, 3]]
    assert resample_labels(np.arange(1, 5, dtype=np.uint8)[None], 1, 2).tolist() == [[2, 4]]
    square = np.arange(1, 10, dtype=np.uint32).reshape(3, 3)
    assert resample_labels(square, 2, 5).tolist() == [[1, 1, 2, 3, 3], [7, 7, 8, 9, 9]]


@given(hnp.arrays(np.uint32, shapes), st.integers(1, 20), st.integers(1, 20))
def test_labels_are_never_mixed(labels: NDArray[np.uint32], height: int, width: int) -> None:
    out = resample_labels(labels, height, width)
    assert out.shape == (height, width)
    assert set(np.unique(out)) <= set(np.unique(labels))
