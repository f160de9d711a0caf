"""Plates, curves, words and numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cellfleet.fleet.pages.charts import coloured, curve_chart, plate_view
from cellfleet.fleet.pages.formatting import (
    ago_text,
    check_text,
    duration_text,
    fact_text,
    number_text,
    record_text,
    size_text,
    state,
    when_text,
)
from cellfleet.fleet.pages.i18n import Translator
from cellfleet.fleet.pages.queries.device_queries import WellReading, well_order
from cellfleet.fleet.pages.rendering import json_for_script, parsed_time, static_address

EN, ZH = Translator("en"), Translator("zh-TW")
AT = datetime(2026, 3, 2, 9, 5, tzinfo=UTC)


def reading(well: str, confluence: float = 50.0, count: int = 10) -> WellReading:
    return WellReading(well, f"{well}_t0", 0.0, confluence, count, ())


@pytest.mark.parametrize(("wells", "rows", "columns"), [(6, 2, 3), (24, 4, 6), (96, 8, 12), (384, 16, 24)])
def test_a_plate_has_the_wells_of_its_format(wells: int, rows: int, columns: int) -> None:
    plate = plate_view([reading("A1"), reading("B02", 100.0)], wells, "confluence")
    assert len(plate.rows) == rows
    assert plate.columns == tuple(range(1, columns + 1))
    assert plate.rows[0][1][0].text == "50"
    assert plate.rows[1][1][1].heat == 8
    assert plate.off == ()


def test_wells_that_are_not_on_the_plate_are_told() -> None:
    plate = plate_view([reading("H12"), reading("nowhere"), reading("Q1")], 6, "confluence")
    assert [r.well for r in plate.off] == ["H12", "nowhere", "Q1"]


def test_heat_of_counts_goes_to_the_greatest() -> None:
    plate = plate_view([reading("A1", count=0), reading("A2", count=200)], 96, "count")
    assert (plate.low, plate.high) == (0.0, 200.0)
    assert [c.heat for c in plate.rows[0][1][:3]] == [1, 8, 0]
    assert plate_view([], 96, "count").high == 1.0


def test_wells_are_in_the_order_of_the_plate() -> None:
    assert sorted(["A10", "B1", "A2", "AA1", "odd"], key=well_order) == ["A2", "A10", "B1", "AA1", "odd"]


def test_curves_have_one_series_a_well() -> None:
    chart = curve_chart({"A1": [(0.0, 1.0, 2.0), (1.0, 3.0, 4.0)], "A2": []}, 2, "cells", "d")
    assert chart["series"] == [{"name": "A1", "points": [(0.0, 2.0), (1.0, 4.0)]}]


def test_json_cannot_leave_its_script_element() -> None:
    made = json_for_script({"a": "</script><!-- & \u2028"})
    assert "<" not in made
    assert "\u2028" not in made
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_for_script(float("nan"))


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [(0.25, "250 ms", "250 毫秒"), (4.2, "4.2 s", "4.2 秒"), (59, "59 s", "59 秒"), (61, "1 min 1 s", "1 分 1 秒"),
     (7260, "2 h 1 min", "2 小時 1 分"), (90000, "1 d 1 h", "1 天 1 小時"), (None, "–", "–")],
)  # fmt: skip
def test_lengths_of_time(seconds: float | None, english: str, chinese: str) -> None:
    assert (duration_text(seconds, EN), duration_text(seconds, ZH)) == (english, chinese)


def test_times() -> None:
    assert when_text(AT, EN) == "2 Mar 2026, 09:05 UTC"
    assert when_text(AT, ZH) == "2026年3月2日 09:05 UTC"
    assert ago_text(AT - timedelta(seconds=1), AT, EN) == "1 second ago"
    assert ago_text(AT - timedelta(hours=5), AT, ZH) == "5 小時前"
    assert ago_text(AT + timedelta(hours=1), AT, EN) == "2 Mar 2026, 10:05 UTC"
    assert parsed_time("2026-03-02T09:05:00Z") == AT
    assert parsed_time("2026-03-02T09:05:00") == AT
    assert parsed_time("soon") is None


def test_numbers_and_sizes() -> None:
    assert (number_text(1234567), number_text(0.12345, 3), number_text(None), number_text("x")) == (
        "1,234,567",
        "0.123",
        "–",
        "x",
    )
    assert (size_text(999), size_text(8_700_000), size_text(2.5e12)) == ("999 B", "8.7 MB", "2,500 GB")
    assert fact_text({"a": 0.5, "b": {"c": True}}) == "a: 0.5; b: {c yes}"
    assert fact_text([1, "x"]) == "1, x"


def test_states_that_are_not_known_are_shown_as_they_are() -> None:
    assert state("rolled-back").tone == "bad"
    assert state("dancing").text == "dancing"


def test_the_address_of_a_static_file_has_its_digest() -> None:
    assert static_address("pages.css").startswith("/static/pages.css?v=")


def test_stages_have_colours_of_their_own_and_waiting_is_no_work() -> None:
    names = ("wait", "read", "prepare", "network", "resample", "objects", "measure", "watch", "write")
    stages = coloured([(name, 0.0 if name == "resample" else 5.0) for name in names])
    assert [name for name, _ms, _colour in stages] == [n for n in names if n not in ("wait", "resample")]
    assert len({colour for _name, _ms, colour in stages}) == len(stages)


def test_numbers_and_thresholds_of_a_record_have_words() -> None:
    assert record_text("numbers", {"ap50": 0.91, "dice": 0.8, "true": 591, "ap": {"0.5": 0.9}}, EN) == (
        "AP@0.5 0.910 · Dice 0.800"
    )
    asked = {"min_ap50": 0.5, "min_map": None, "min_stratum_ap50": 0.3}
    assert record_text("thresholds", asked, EN) == "AP@0.5, at least 0.5 · AP@0.5 of every stratum, at least 0.3"
    assert (
        record_text("reasons", ["AP@0.5 is 0; the minimum is 0.5", "more"], ZH)
        == "AP@0.5 is 0; the minimum is 0.5; more"
    )
    drawn = {"variant": "onnxruntime/int8", "ap50": 0.881686, "confluence_error": 0.38}
    assert record_text("drawn_by", drawn, EN) == "onnxruntime/int8 · AP@0.5 0.882 · confluence error (points) 0.380"
    assert record_text("splits", {"test": 9, "train": 21}, EN) == "test: 9; train: 21"
    assert record_text("seed", 3, EN) == fact_text(3)
    assert check_text("min_stratum_ap50[round]", EN) == "AP@0.5 of round, at least"
    assert check_text("something_new", EN) == "something_new"
