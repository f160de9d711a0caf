"""Overlays and charts: right and wrong objects look different, whatever the size."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellfleet.data import Frame
from cellfleet.evaluate.charts import SERIES, ap_chart, count_chart, style
from cellfleet.evaluate.evaluation import FrameResult, Scene
from cellfleet.evaluate.pictures import FALSE, FOUND, MISSED, draw, jpeg, picture_shape, png
from cellfleet.metrics import FrameScore, match, numbers_of, summarise


def scene(side: int = 600, dtype: Any = np.uint8) -> Scene:
    """Three squares: the first is found, the second is missed, the third is false."""
    part = side // 12
    truth, labels = np.zeros((side, side), np.uint32), np.zeros((side, side), np.uint32)
    truth[part : 3 * part, part : 3 * part] = labels[part : 3 * part, part : 3 * part] = 7
    truth[5 * part : 7 * part, 5 * part : 7 * part] = 3
    labels[9 * part : 11 * part, 9 * part : 11 * part] = 2
    plane: NDArray[Any] = (40 + 60 * (truth > 0)).astype(dtype)
    score = match(truth, labels)
    result = FrameResult("a", "A", side, side, score, numbers_of([score]), {})
    return Scene(Frame(np.stack([plane * 0, plane]), ("dark", "phase"), None, {}, "a"), truth, labels, result)


def at(picture: NDArray[np.uint8], square: int, colour: tuple[int, int, int]) -> int:
    """How many pixels of a colour there are across the middle of a square's left side, of 21."""
    side = picture.shape[0] / 12
    row, column = round((square + 1) * side), round(square * side)
    across = picture[row - 3 : row + 4, max(0, column - 10) : column + 11]
    return int((across == np.array(colour, np.uint8)).all(axis=2).sum(axis=1).max())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_kind_of_object_has_its_outline(dtype: type) -> None:
    picture = draw(scene(600, dtype), "phase", 1000)
    assert picture.shape == (600, 600, 3)
    expected = {(1, FOUND): 2, (5, MISSED): 2, (9, FALSE): 4}
    for square in (1, 5, 9):
        for colour in (FOUND, MISSED, FALSE):
            assert at(picture, square, colour) == expected.get((square, colour), 0)


def test_a_missed_outline_is_dashed() -> None:
    picture = draw(scene(), "phase", 1000)
    yellow = (picture == np.array(MISSED, np.uint8)).all(axis=2)[:, 249:252].any(axis=1)
    assert 0.3 < yellow[255:345].mean() < 0.9


def test_the_named_channel_is_shown() -> None:
    assert draw(scene(), "phase", 1000)[200, 10].tolist() == [8, 8, 8]
    assert draw(scene(), "dark", 1000)[200, 10].tolist() == [110, 110, 110]
    assert draw(scene(), "absent", 1000)[200, 10].tolist() == [110, 110, 110]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1022, 1024), (998, 1000)),
        ((48, 64), (384, 512)),
        ((1, 1), (12, 12)),
        ((1, 5000), (1, 1000)),
        ((900, 500), (900, 500)),
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert picture_shape(*size, 1000) == expected


def test_a_reduced_picture_keeps_its_outlines() -> None:
    picture = draw(scene(2400), "phase", 1000)
    assert picture.shape == (1000, 1000, 3)
    assert all(at(picture, square, colour) for square, colour in ((1, FOUND), (5, MISSED), (9, FALSE)))


def test_files_can_be_read_back() -> None:
    picture = draw(scene(), "phase", 1000)
    back = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert (back[:, :, ::-1] == picture).all()
    blurred = cv2.imdecode(np.frombuffer(jpeg(picture), np.uint8), cv2.IMREAD_COLOR)
    assert blurred is not None
    assert np.abs(blurred[:, :, ::-1].astype(int) - picture).mean() < 4


def result(name: str, stratum: str, true: int, predicted: int) -> FrameResult:
    score = FrameScore(true, predicted, (min(true, predicted),) * 10, 0, 1, 1, 1, 9)
    return FrameResult(name, stratum, 3, 3, score, numbers_of([score]), {})


def test_charts_are_valid_svg_with_a_mark_per_number() -> None:
    frames = [result(f"<{i}>", f"s & {i % 2}", 5 * i, 4 * i) for i in range(7)]
    summary = summarise([f.score for f in frames], [f.stratum for f in frames])
    lines = ET.fromstring(ap_chart(summary))
    assert len(lines.findall("polyline")) == 3
    assert len(lines.findall("path")) == 30
    points = ET.fromstring(count_chart(frames, {"s & 0": 1, "s & 1": 2}))
    assert len(points.findall("path")) == 7
    assert points.findall("path")[3].findtext("title") == "<3>: 15 true, 12 predicted"
    assert "too many objects in 0 and too few in 6" in (points.findtext("desc") or "")


def test_one_stratum_is_one_line_and_no_object_is_a_chart_too() -> None:
    frames = [result("a", "A", 0, 0)]
    assert len(ET.fromstring(ap_chart(summarise([frames[0].score], ["A"]))).findall("polyline")) == 1
    assert len(ET.fromstring(count_chart(frames, {"A": 1})).findall("path")) == 1


def test_styles_repeat_but_that_of_all_frames_does_not() -> None:
    names = [style(i) for i in range(2 * SERIES)]
    assert names[0] == "s0"
    assert "s0" not in names[1:]
    assert set(names) == {f"s{i}" for i in range(SERIES)}
