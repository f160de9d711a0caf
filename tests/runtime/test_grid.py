"""The pixel-size rule: when an image is resampled, to which size, and when a pixel size makes no sense."""

from __future__ import annotations

import pytest

from cellfleet.errors import SegmentError
from cellfleet.runtime.grid import MAX_GRID_PX, GridSize, model_grid, size_on_grid
from support_onnx import tiny_spec


def size(height: int, width: int, pixel_size_um: float | None, target_um: float | None = 1.0) -> GridSize:
    return size_on_grid(height, width, pixel_size_um, target_um, "a frame")


@pytest.mark.parametrize(("pixel_size_um", "rows"), [(0.979, 979), (0.981, 1000), (1.019, 1000), (1.021, 1021)])
def test_up_to_two_percent_nothing_is_resampled(pixel_size_um: float, rows: int) -> None:
    found = size(1000, 1000, pixel_size_um)
    assert (found.height, found.width) == (rows, rows)
    assert found.scale == pytest.approx(1.0 if rows == 1000 else 1 / pixel_size_um)


def test_sizes_are_rounded_half_to_even_and_never_zero() -> None:
    assert size(100, 51, 0.5) == GridSize(50, 26, 2.0)
    assert size(99, 49, 0.5) == GridSize(50, 24, 2.0)
    assert size(1, 1, 0.1) == GridSize(1, 1, 10.0)
    assert size(10, 30, 2.5) == GridSize(25, 75, 0.4)


def test_without_both_pixel_sizes_the_image_stays_as_it_is() -> None:
    assert size(100, 51, None) == size(100, 51, 0.5, None) == GridSize(100, 51, 1.0)


def test_the_largest_grid_is_allowed_and_one_row_more_is_not() -> None:
    assert MAX_GRID_PX == 30_000 * 50_000
    assert size(300, 500, 100.0) == GridSize(30_000, 50_000, 0.01)
    with pytest.raises(SegmentError, match=r"a frame: with 100\.1 um pixels, 300 x 500 pixels would be 30030 x 50050"):
        size(300, 500, 100.1)


def test_a_frame_of_one_pixel_is_not_resampled_to_itself() -> None:
    grid = model_grid(tiny_spec(target_pixel_size_um=1.0, demands_pixel_size=True), 1, 1, 0.5, "a frame")
    assert (grid.height, grid.width, grid.resampled) == (1, 1, False)
