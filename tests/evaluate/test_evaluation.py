"""Numbers of an evaluation: those of the metrics on the very frames, in the very order."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cellfleet.data import DataSetVersion, Frame
from cellfleet.errors import DataError, EvaluateError, MetricsError
from cellfleet.evaluate.evaluation import Labels, Scene, evaluate
from cellfleet.metrics import match, summarise
from cellfleet.ports import FixedClock
from support_evaluation import disc_data


def bright(frame: Frame) -> Labels:
    """The upper half of the frame's bright pixels, all as one object: bad, and easy to make by hand."""
    labels: Labels = (frame.pixels[0] > 100).astype(np.uint32)
    labels[labels.shape[0] // 2 :] = 0
    return labels


def test_numbers_are_those_of_the_metrics(data: DataSetVersion) -> None:
    found = evaluate(bright, data, "test")
    entries = data.split("test")
    scores = [match(data.load_mask(e), bright(data.load_frame(e))) for e in entries]
    assert [f.id for f in found.frames] == [e.id for e in entries]
    assert [f.score for f in found.frames] == scores
    assert found.summary == summarise(scores, [e.stratum for e in entries])
    assert set(found.summary.strata) == {"A", "B"}
    assert found.summary.overall.ap50 < 0.2
    assert (found.data_set, found.split) == (data.digest, "test")


def test_a_perfect_segmentation_scores_one(data: DataSetVersion) -> None:
    truth = {str(data.load_frame(e).source): data.load_mask(e) for e in data.split("validation")}
    overall = evaluate(lambda frame: truth[frame.source], data, "validation").summary.overall
    assert (overall.ap50, overall.map, overall.dice) == (1, 1, 1)
    assert (overall.count_error, overall.confluence_error) == (0, 0)


def test_worst_first_and_every_frame_is_seen(data: DataSetVersion) -> None:
    truth = {str(data.load_frame(e).source): data.load_mask(e) for e in data.split("test")}
    spoiled = sorted(truth)[2]

    def segment(frame: Frame) -> Labels:
        return truth[frame.source] * (frame.source != spoiled)

    seen: list[Scene] = []
    steps: list[tuple[int, int]] = []
    found = evaluate(segment, data, "test", lambda d, t, _: steps.append((d, t)), on_frame=seen.append)
    assert [s.result for s in seen] == list(found.frames)
    assert steps == [(i, 4) for i in range(1, 5)]
    assert found.worst_first[0] == found.frames[2]
    assert [f.id for f in found.worst_first[1:]] == [f.id for i, f in enumerate(found.frames) if i != 2]
    assert found.worst_first[0].numbers.ap50 == 0
    assert found.worst_first[0].confluence[0] > 0 == found.worst_first[0].confluence[1]


def test_time_is_taken_from_the_clock(data: DataSetVersion) -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))

    def segment(frame: Frame) -> Labels:
        clock.elapsed_s += 0.25
        return bright(frame)

    found = evaluate(segment, data, clock=clock)
    assert dict(found.stages_ms) == {"total": 250.0}


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    data = disc_data(tmp_path, count=3)
    kept = DataSetVersion.make([e for e in data.entries if e.split != "test"], data.root)
    with pytest.raises(EvaluateError, match="has no image"):
        evaluate(bright, kept)


def test_labels_of_another_size_are_an_error(data: DataSetVersion) -> None:
    with pytest.raises(MetricsError, match="the predicted one"):
        evaluate(lambda frame: bright(frame)[:-1], data)


def test_a_changed_image_is_an_error(tmp_path: Path) -> None:
    data = disc_data(tmp_path, count=6)
    path = data.root / data.split("test")[0].image.uri
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DataError, match="changed since it was frozen"):
        evaluate(bright, data)
