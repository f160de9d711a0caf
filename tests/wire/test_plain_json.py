"""Plain JSON data: what comes through can be written, stored and read by everybody."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.canonical import canonical_bytes
from cellfleet.wire.plain_json import MAX_DEPTH, check_plain, made_plain, words

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(ANY)
def test_what_is_taken_comes_back_the_same(value: Any) -> None:
    try:
        check_plain(value)
    except ValueError:
        return
    data = canonical_bytes(value)
    assert b"\\u0000" not in data
    assert json.loads(data) == value


@given(ANY.filter(lambda v: not isinstance(v, bytes)))
def test_what_is_good_is_taken(value: Any) -> None:
    try:
        text = canonical_bytes(value).decode()
    except (ValueError, TypeError):
        with pytest.raises(ValueError, match=r"cannot be kept|levels"):
            check_plain(value)
        return
    if "\\u0000" not in text and not any(abs(n) >= 2**63 for n in _whole_numbers(value)):
        assert check_plain(value) is value


@given(ANY)
def test_anything_is_made_plain_and_what_is_plain_stays(value: Any) -> None:
    made = made_plain({"value": value})
    assert check_plain(made) is made
    try:
        check_plain(value)
    except ValueError:
        return
    assert made == {"value": value}


@given(st.text(st.characters()), st.integers(0, 50))
def test_words_are_text_of_bounded_length(text: str, most: int) -> None:
    said = words(text, most)
    assert check_plain(said) == said
    assert len(said) == min(len(text), most)


def test_depth_is_bounded() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert check_plain(deep) is deep
    with pytest.raises(ValueError, match="levels deep"):
        check_plain([deep])
    many = [{"path": f"images/{i}.tif", "sha256": "a" * 64} for i in range(20_000)]
    assert check_plain(many) is many, "the manifest of a large data set"


def _whole_numbers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in _whole_numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in _whole_numbers(v)]
    return [value] if isinstance(value, int) else []
