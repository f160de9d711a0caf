"""Drawing splits: the promises, on any data set."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellfleet.data.records import SPLITS
from cellfleet.data.splits import Member, absent_strata, draw, units_of
from cellfleet.errors import ConfigError, DataError

MEMBERS = st.lists(
    st.tuples(st.integers(0, 14), st.sampled_from("ABC"), st.integers(0, 60)), min_size=1, max_size=60
).map(lambda rows: [Member(f"i{n}", f"g{g}", s, f"p{p}" if p < 6 else "") for n, (g, s, p) in enumerate(rows)])


@settings(max_examples=300, deadline=None)
@given(members=MEMBERS, seed=st.integers(0, 99))
def test_no_group_straddles_and_the_order_does_not_matter(members: list[Member], seed: int) -> None:
    if len(units_of(members)) < 3:
        with pytest.raises(DataError, match="cannot be drawn"):
            draw(members, 0.15, 0.2)
        return
    splits = draw(members, 0.15, 0.2)
    where: dict[str, set[str]] = defaultdict(set)
    for m in members:
        where[f"group {m.group}"].add(splits[m.id])
        if m.pixels:
            where[f"pixels {m.pixels}"].add(splits[m.id])
    assert all(len(names) == 1 for names in where.values())
    assert set(splits.values()) == set(SPLITS)
    shuffled = list(members)
    random.Random(seed).shuffle(shuffled)
    assert draw(shuffled, 0.15, 0.2) == splits


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(3, 20), min_size=1, max_size=4), st.floats(0.05, 0.3), st.floats(0.05, 0.4))
def test_every_stratum_is_in_every_split_with_its_share(sizes: list[int], validation: float, test: float) -> None:
    members = [Member(f"{s}-{i}", f"{s}-{i}", f"s{s}") for s, n in enumerate(sizes) for i in range(n)]
    splits = draw(members, validation, test)
    assert absent_strata(members, splits) == []
    for split, share in (("validation", validation), ("test", test)):
        count = sum(1 for v in splits.values() if v == split)
        # The share, rounded up, unless every stratum needs one here or must keep one elsewhere.
        taken = sum(1 for v in splits.values() if v == "test") if split == "validation" else len(sizes)
        assert count >= min(share * len(members) - 1e-6, len(members) - taken - len(sizes))
        assert count <= max(share * len(members) + 1, len(sizes))


def test_a_stratum_of_two_groups_is_in_train_and_test_and_the_reason_is_told() -> None:
    members = [Member(f"a{i}", f"a{i}", "A") for i in range(8)] + [Member(f"b{i}", f"b{i}", "B") for i in range(2)]
    splits = draw(members, 0.15, 0.2)
    assert {splits["b0"], splits["b1"]} == {"train", "test"}
    assert absent_strata(members, splits) == [("B", ["validation"], 2)]


def test_adding_images_keeps_to_names_not_to_positions() -> None:
    members = [Member(f"i{i:03}", f"g{i}", "all") for i in range(40)]
    before = draw(members, 0.15, 0.2)
    after = draw([*members, Member("new", "new", "all")], 0.15, 0.2)
    moved = sum(1 for i, s in before.items() if after[i] != s)
    assert moved <= 4


def test_shares_that_leave_nothing() -> None:
    with pytest.raises(ConfigError, match="leave no image"):
        draw([Member("a", "a", "s")], 0.5, 0.5)
