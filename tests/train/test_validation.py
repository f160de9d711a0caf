"""Validation and the choice of object parameters, by the runtime's own post-processing."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cellfleet.bundle.spec import ObjectParams
from cellfleet.data import DataSetVersion
from cellfleet.runtime.engines import make_engine
from cellfleet.runtime.objects import quantise
from cellfleet.runtime.segmenter import Segmenter
from cellfleet.train import TrainingRun
from cellfleet.train.exporting.export import Exported
from cellfleet.train.grid import TrainingGrid
from cellfleet.train.samples import load_samples
from cellfleet.train.state import load_network
from cellfleet.train.targets import distance_target
from cellfleet.train.validation import (
    AREAS,
    DEFAULT_PARAMS,
    FOREGROUNDS,
    SEEDS,
    SMOOTH,
    QuantisedMaps,
    choose_params,
    maps_of,
    numbers_with,
    score_of,
    validate,
)
from support_bundle import discs


@pytest.fixture(scope="module")
def maps() -> list[QuantisedMaps]:
    """Imperfect maps: blurred, noisy, too faint for the default thresholds."""
    out = []
    for seed in range(3):
        labels = discs(seed)[1].astype(np.uint32)
        noise = np.random.default_rng(seed).normal(0, 0.12, (2, *labels.shape))
        foreground = 0.75 * ndimage.gaussian_filter((labels > 0).astype(np.float64), 1.5) + noise[0]
        distance = 0.8 * ndimage.gaussian_filter(distance_target(labels).astype(np.float64), 1) + noise[1]
        f, d = (quantise(x.clip(0, 1).astype(np.float32)) for x in (foreground, distance))
        out.append(QuantisedMaps(f, d, labels, 1.0))
    return out


def best_of(maps: list[QuantisedMaps], tried: list[ObjectParams]) -> ObjectParams:
    """The first of those with the best score."""
    scores = [score_of(numbers_with(maps, p)) for p in tried]
    return tried[int(np.argmax(scores))]


def test_the_choice_is_the_best_of_all_that_are_tried(maps: list[QuantisedMaps]) -> None:
    def with_(base: ObjectParams, **change: float) -> ObjectParams:
        return ObjectParams.model_validate({**base.model_dump(), **change})

    thresholds = [
        with_(DEFAULT_PARAMS, seed_threshold=s, foreground_threshold=f, smooth_passes=p)
        for s, f, p in itertools.product(SEEDS, FOREGROUNDS, SMOOTH)
    ]
    first = best_of(maps, [DEFAULT_PARAMS, *thresholds])
    areas = [with_(first, min_area_px=a, min_seed_area_px=s) for a, s in itertools.product(AREAS, (1, 3, 8))]
    expected = best_of(maps, [first, *areas])
    steps: list[tuple[int, int]] = []
    chosen, numbers = choose_params(maps, lambda done, total, _: steps.append((done, total)))
    assert chosen == expected
    assert numbers == numbers_with(maps, chosen)
    assert score_of(numbers) > score_of(numbers_with(maps, DEFAULT_PARAMS))
    assert steps == [(i, len(thresholds) + len(areas)) for i in range(1, len(thresholds) + len(areas) + 1)]


def test_of_equal_choices_the_default_stays() -> None:
    empty = np.zeros((16, 16), np.uint16)
    maps = [QuantisedMaps(empty, empty, np.zeros((16, 16), np.uint32), 1.0)]
    assert choose_params(maps)[0] == DEFAULT_PARAMS


def test_choosing_does_not_use_the_maps_up(maps: list[QuantisedMaps]) -> None:
    before = [m.distance.copy() for m in maps]
    choose_params(maps)
    assert all((m.distance == b).all() for m, b in zip(maps, before, strict=True))


def test_training_sees_the_maps_that_instruments_will_see(
    run: TrainingRun, run_dir: Path, data: DataSetVersion, exported: Exported
) -> None:
    network = load_network(run_dir / "best.pt", 1, run.section, run.heads)
    entries = data.split("validation")
    grid = TrainingGrid(run.target_pixel_size_um, run.training_pixel_size_um)
    samples = load_samples(data, entries, ("phase",), grid, run.heads)
    folder = exported.folder
    variant = folder.variants[0]
    engine = make_engine("onnxruntime", folder.read(variant.file, variant.sha256), 1)
    segmenter = Segmenter(folder.spec, engine)
    for here, entry in zip(maps_of(network, samples, data, entries), entries, strict=True):
        there = segmenter.maps(data.load_frame(entry))
        assert here.scale == there.scale
        assert there.foreground is not None
        assert there.distance is not None
        assert np.abs(here.foreground.astype(int) - there.foreground).max() <= 2
        assert np.abs(here.distance.astype(int) - there.distance).max() <= 2
    numbers = validate(network, samples)
    assert numbers.ap50 > 0.9


def test_maps_are_scaled_by_pixel_sizes_as_on_instruments(
    run: TrainingRun, run_dir: Path, data: DataSetVersion
) -> None:
    """72 rows of 0.5 um are 28 on a grid of 1.3 um; a scale of 72 / 28 would ask for other areas than an instrument."""
    network = load_network(run_dir / "best.pt", 1, run.section, run.heads)
    entries = data.split("validation")[:1]
    samples = load_samples(data, entries, ("phase",), TrainingGrid(1.3, 0.5), run.heads)
    (maps,) = maps_of(network, samples, data, entries)
    assert maps.scale == pytest.approx(2.6)


def test_the_parameters_of_the_run_are_those_of_the_choice(
    run: TrainingRun, run_dir: Path, data: DataSetVersion
) -> None:
    network = load_network(run_dir / "best.pt", 1, run.section, run.heads)
    entries = data.split("validation")
    grid = TrainingGrid(run.target_pixel_size_um, run.training_pixel_size_um)
    maps = maps_of(network, load_samples(data, entries, ("phase",), grid, run.heads), data, entries)
    chosen, numbers = choose_params(maps)
    assert (run.objects, run.validation_ap50, run.validation_map) == (chosen, numbers.ap50, numbers.map)
