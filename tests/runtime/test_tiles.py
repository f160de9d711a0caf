"""Tiles: cores cover the frame once, halos are wide enough, everything lies on the network's stride."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cellfleet.runtime.tiles import Span, cut, tile_spans


def test_a_halo_is_rounded_up_to_the_stride() -> None:
    first, second, third = tile_spans(144, tile_px=48, stride=16, halo_px=17)
    assert (first.start, first.core_start, first.core_stop, first.stop) == (0, 0, 48, 48 + 32)
    assert (second.start, second.core_start, second.core_stop, second.stop) == (48 - 32, 48, 96, 96 + 32)
    assert (third.start, third.core_start, third.core_stop, third.stop) == (96 - 32, 96, 144, 144)
    assert second.keep == slice(32, 80)


def test_a_halo_of_whole_strides_is_left_as_it_is() -> None:
    assert tile_spans(144, tile_px=48, stride=16, halo_px=16)[1] == Span(32, 48, 96, 112)


def test_a_side_of_just_the_tile_is_one_tile() -> None:
    assert tile_spans(100, tile_px=100, stride=16, halo_px=8) == [Span(0, 0, 100, 100)]
    assert len(tile_spans(101, tile_px=100, stride=16, halo_px=8)) == 2


def test_a_tile_is_not_rounded_up_above_its_limit() -> None:
    """Two cores of 100 would be 112 long on a stride of 16."""
    assert [s.core_stop - s.core_start for s in tile_spans(200, tile_px=100, stride=16, halo_px=8)] == [80, 80, 40]


def test_tiles_are_of_equal_length() -> None:
    """Not one full tile and a thin rest."""
    assert [s.core_stop - s.core_start for s in tile_spans(520, tile_px=512, stride=4, halo_px=8)] == [260, 260]


@given(
    st.integers(1, 700), st.integers(1, 300), st.sampled_from([1, 4, 16, 32]), st.integers(0, 70)
)  # fmt: skip
def test_what_holds_of_every_tile(length: int, tile_px: int, stride: int, halo_px: int) -> None:
    spans = tile_spans(length, tile_px=tile_px, stride=stride, halo_px=halo_px)
    assert [s.core_start for s in spans] == [0, *(s.core_stop for s in spans[:-1])]
    assert spans[-1].core_stop == length
    for span in spans:
        assert 0 <= span.start <= span.core_start < span.core_stop <= span.stop <= length
        assert span.core_stop - span.core_start <= max(stride, tile_px)
        assert span.start % stride == 0
        assert span.core_start - span.start >= min(halo_px, span.core_start)
        assert span.stop - span.core_stop >= min(halo_px, length - span.core_stop)


def test_a_frame_is_cut_row_by_row() -> None:
    tiles = cut(20, 50, tile_px=32, stride=4, halo_px=4)
    assert [(t.y.core_start, t.y.core_stop, t.x.core_start, t.x.core_stop) for t in tiles] == [
        (0, 20, 0, 28),
        (0, 20, 28, 50),
    ]
