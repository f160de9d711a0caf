"""What the network is shown: targets, the model's grid, crops and augmentation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cellfleet.data import DataSetVersion
from cellfleet.errors import SegmentError
from cellfleet.runtime.grid import model_grid
from cellfleet.runtime.objects import frame_moments
from cellfleet.train.augment import Augmentation
from cellfleet.train.grid import TrainingGrid, choose_grid
from cellfleet.train.networks import DEFAULT_HEADS
from cellfleet.train.preflight import check_crop
from cellfleet.train.samples import Crops, Sample, load_samples, prepare
from cellfleet.train.targets import distance_target, targets_of
from support_bundle import discs
from support_onnx import tiny_spec
from support_training import section, two_classes

Labels = NDArray[np.uint32]
NATIVE = TrainingGrid(None, None)


def scene(seed: int = 0) -> Labels:
    return discs(seed)[1].astype(np.uint32)


def test_the_distance_is_the_euclidean_one_of_every_object() -> None:
    labels = scene()
    found = distance_target(labels)
    for number in range(1, int(labels.max()) + 1):
        mask = np.pad(labels == number, 1)
        exact = ndimage.distance_transform_edt(mask)[1:-1, 1:-1]
        np.testing.assert_allclose(found[labels == number], (exact / exact.max())[labels == number], atol=1e-6)
    assert (found[labels == 0] == 0).all()


def test_objects_that_touch_have_a_valley_between_them() -> None:
    labels = np.zeros((20, 41), np.uint32)
    labels[:, :20], labels[:, 20:] = 7, 4_000_000_000
    found = distance_target(labels)
    assert found[:, :20].max() == found[:, 20:].max() == 1
    assert found[5:15, 19].max() < 0.2
    assert found[5:15, 20].max() < 0.2
    assert (found > 0).all()


def test_small_and_large_objects_have_the_same_peak() -> None:
    labels = np.zeros((60, 60), np.uint32)
    labels[1, 1] = 1
    labels[10:50, 10:50] = 2
    found = distance_target(labels)
    assert found[1, 1] == 1
    assert found.max() == 1


def test_no_objects_and_nothing_but_one_object() -> None:
    assert (distance_target(np.zeros((5, 6), np.uint32)) == 0).all()
    assert distance_target(np.full((5, 5), 3, np.uint32))[2, 2] == 1


def test_the_target_does_not_depend_on_where_it_lies_in_memory() -> None:
    labels, kept, found = scene(3), [], set()
    for i in range(30):
        kept.append(np.empty(37 * i + 1, np.uint8))
        found.add(distance_target(labels.copy()).tobytes())
    assert len(found) == 1


def test_a_target_for_every_head() -> None:
    labels = scene()
    targets = targets_of(labels, two_classes())
    assert targets.dtype == np.float32
    assert targets.shape == (3, *labels.shape)
    assert (targets[0] == (labels > 0)).all()
    assert (targets[1] == distance_target(labels)).all()
    assert (targets[2] == targets[0]).all()


def test_a_sample_is_normalised_as_the_runtime_does(data: DataSetVersion) -> None:
    entry = data.split("train")[0]
    sample = prepare(data, entry, ("phase",), NATIVE, DEFAULT_HEADS)
    pixels = data.load_frame(entry).pixels
    mean, std = frame_moments(pixels)
    assert (sample.image == (pixels.astype(np.float32) - mean[:, None, None]) / std[:, None, None]).all()
    assert (sample.labels == data.load_mask(entry)).all()


def test_a_sample_on_a_coarser_grid(data: DataSetVersion) -> None:
    entry = data.split("train")[0]
    sample = prepare(data, entry, ("phase",), TrainingGrid(1.0, 0.5), DEFAULT_HEADS)
    assert sample.image.shape == (1, 36, 48)
    assert sample.labels.shape == (36, 48)
    assert len(np.unique(sample.labels)) == 7
    assert abs(float(sample.image.mean())) < 1e-5


# The model's grid


def median_diameter_um(data: DataSetVersion) -> float:
    areas = np.concatenate([np.bincount(data.load_mask(e).ravel())[1:] for e in data.split("train")])
    return 0.5 * float(np.median(2 * np.sqrt(areas / np.pi)))


@pytest.mark.parametrize("diameter_px", [6.0, 9.5, 13.0, 28.0])
def test_the_median_cell_has_the_wanted_diameter(data: DataSetVersion, diameter_px: float) -> None:
    grid = choose_grid(data, section(cell_diameter_px=diameter_px))
    assert grid.target_pixel_size_um is not None
    found = median_diameter_um(data) / grid.target_pixel_size_um
    if found < diameter_px * 0.96:
        assert grid.target_pixel_size_um == 0.5, "never finer than the image"
    else:
        assert found == pytest.approx(diameter_px, rel=0.04)
    steps = grid.target_pixel_size_um / 0.5 / 0.05
    assert steps == pytest.approx(round(steps), abs=1e-6)
    assert grid.training_pixel_size_um == 0.5


def test_other_rules_for_the_grid(data: DataSetVersion) -> None:
    assert choose_grid(data, section(target_pixel_size_um="native")) == TrainingGrid(None, 0.5)
    assert choose_grid(data, section(target_pixel_size_um=0.8)) == TrainingGrid(0.8, 0.5)
    unknown = DataSetVersion.make([e.model_copy(update={"pixel_size_um": None}) for e in data.entries], data.root)
    assert choose_grid(unknown, section()) == TrainingGrid(None, None)
    sizes = {"A": 0.5, "B": 0.25}
    mixed = [e.model_copy(update={"pixel_size_um": sizes[e.stratum]}) for e in data.entries]
    grid = choose_grid(DataSetVersion.make(mixed, data.root), section(cell_diameter_px=10))
    assert grid.training_pixel_size_um is None
    assert grid.target_pixel_size_um is not None


def test_an_image_that_would_be_absurdly_large_on_the_grid_is_refused_before_it_is_loaded(data: DataSetVersion) -> None:
    with pytest.raises(SegmentError, match="on the model's grid of 1e-06 um"):
        check_crop(data.split("train"), TrainingGrid(1e-6, 0.5), section())


def test_the_grid_is_that_of_instruments(data: DataSetVersion) -> None:
    entry = data.split("train")[0]
    frame = data.load_frame(entry)
    spec = tiny_spec(target_pixel_size_um=1.3, training_pixel_size_um=0.5)
    grid = model_grid(spec, frame.height, frame.width, frame.pixel_size_um, entry.id)
    sample = prepare(data, entry, ("phase",), TrainingGrid(1.3, 0.5), DEFAULT_HEADS)
    assert sample.image.shape == (1, grid.height, grid.width) == (1, 28, 37)
    assert sample.scale == grid.scale


# Crops and augmentation


def drawn(labels: Labels, contrast: float = 10.0) -> Sample:
    """A sample whose image is its own foreground, bright enough to be seen through any change of light."""
    return Sample(contrast * (labels[None] > 0).astype(np.float32), targets_of(labels, DEFAULT_HEADS), labels)


def test_labels_stay_aligned_with_the_pixels() -> None:
    sample, worst = drawn(scene()), 1.0
    for seed in range(150):
        image, targets = Augmentation(1.0).crop(sample, 48, np.random.default_rng(seed))
        assert image.shape == (1, 48, 48)
        assert targets.shape == (2, 48, 48)
        seen, true = image[0] > 4.5, targets[0] > 0
        assert ((targets[1] > 0) == true).all()
        assert targets.min() >= 0
        assert targets.max() <= 1
        if true.sum() > 200:
            worst = min(worst, float((seen & true).sum() / (seen | true).sum()))
    assert 0.75 < worst < 1


def test_augmentation_changes_light_and_place() -> None:
    sample = drawn(scene(), 1.0)
    crops = [Augmentation(1.0).crop(sample, 48, np.random.default_rng(seed))[0] for seed in range(20)]
    assert len({c.tobytes() for c in crops}) == 20
    assert np.std([float(c.mean()) for c in crops]) > 0.05


def test_without_augmentation_a_crop_is_a_window() -> None:
    labels = scene()
    image = np.arange(labels.size, dtype=np.float32).reshape(1, *labels.shape)
    sample = Sample(image, targets_of(labels, DEFAULT_HEADS), labels)
    corners = set()
    for seed in range(60):
        crop, targets = Augmentation(0).crop(sample, 64, np.random.default_rng(seed))
        y, x = divmod(int(crop[0, 0, 0]), labels.shape[1])
        assert (crop == image[:, y : y + 64, x : x + 64]).all()
        assert (targets == sample.targets[:, y : y + 64, x : x + 64]).all()
        corners.add((y, x))
    assert max(y for y, _ in corners) <= 8
    assert len(corners) > 40


def test_crops_depend_on_seed_epoch_and_number_alone(data: DataSetVersion) -> None:
    samples = load_samples(data, data.split("train"), ("phase",), NATIVE, DEFAULT_HEADS)
    one, two = (Crops(samples, 32, 3, 7, Augmentation(1.0)) for _ in range(2))
    assert len(one) == 3 * len(samples)
    for epoch, index in ((5, 2), (1, 0), (2, len(one) - 1)):
        a, b = one.crop(epoch, index), two.crop(epoch, index)
        assert (a[0] == b[0]).all()
        assert (a[1] == b[1]).all()
    assert (one.order(3) == two.order(3)).all()
    assert sorted(one.order(3)) == list(range(len(one)))
    assert (one.order(3) != one.order(4)).any()
    other = Crops(samples, 32, 3, 8, Augmentation(1.0))
    assert (one.crop(1, 0)[0] != other.crop(1, 0)[0]).any()
    assert (one.crop(1, 0)[0] != one.crop(2, 0)[0]).any()


def test_images_smaller_than_a_crop_are_mirrored_with_their_labels() -> None:
    labels = np.zeros((5, 7), np.uint32)
    labels[1:3, 4:] = 1
    crops = Crops([drawn(labels)], 32, 1, 0, Augmentation(0))
    image, targets = crops.crop(1, 0)
    assert image.shape == (1, 32, 32)
    assert ((image[0] > 0) == (targets[0] > 0)).all()
    assert (image[0, :5, :7] > 0).tolist() == (labels > 0).tolist()
    assert (image[0, 5:, 7:] > 0).any()
