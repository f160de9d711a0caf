"""Good frames, drawn and real, get no flag; spoilt ones get the right one, with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellfleet.data import read_image
from cellfleet.data.synthetic import SceneParams, simulate
from cellfleet.monitor import image_features, limits_for, watch_image

PARAMS = SceneParams(height_px=320, width_px=320)


def drawn(seed: int = 0, **changes: Any) -> NDArray[Any]:
    return next(iter(simulate(PARAMS.changed(**changes), 1, seed))).pixels


def names(plane: NDArray[Any], channel: str = "phase") -> list[str]:
    return [flag.name for flag in watch_image(plane, channel)[1]]


def blurred(plane: NDArray[Any], sigma_px: float) -> NDArray[Any]:
    """Out of focus: blurred, with the noise of the camera, which is never blurred."""
    noise = max(0.5, image_features(plane)["noise"])
    random = np.random.default_rng(1)
    soft = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), sigma_px) + random.normal(0, noise, plane.shape)
    out: NDArray[Any] = np.clip(np.round(soft), 0, np.iinfo(plane.dtype).max).astype(plane.dtype)
    return out


def overexposed(plane: NDArray[Any], gain: float) -> NDArray[Any]:
    out: NDArray[Any] = np.clip(plane.astype(np.float32) * gain, 0, np.iinfo(plane.dtype).max).astype(plane.dtype)
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_drawn_frames_are_good(seed: int, bit_depth: int) -> None:
    assert names(drawn(seed, bit_depth=bit_depth)) == []


def test_a_dim_frame_and_one_with_few_cells_are_good() -> None:
    assert names(drawn(exposure=0.1)) == []
    few = tuple(kind.model_copy(update={"density_per_mm2": 60}) for kind in PARAMS.kinds)
    assert names(drawn(kinds=few)) == []


@pytest.mark.parametrize("defocus_um", [10, 20, 40])
@pytest.mark.parametrize("seed", range(2))
def test_defocus(defocus_um: float, seed: int) -> None:
    assert names(drawn(seed, defocus_um=defocus_um)) == ["out-of-focus"]


@pytest.mark.parametrize(("exposure", "gain"), [(2.2, 1), (1, 3)])
def test_saturation(exposure: float, gain: float) -> None:
    assert "saturated" in names(drawn(exposure=exposure, gain=gain))


def test_a_camera_of_12_bits_saturates_below_65535() -> None:
    frame = np.minimum(drawn(bit_depth=16, exposure=2.2).astype(np.uint32) // 16, 4095).astype(np.uint16)
    flags = watch_image(frame, "phase")[1]
    assert [flag.name for flag in flags] == ["saturated"]
    assert "4095" in flags[0].reason


def test_an_empty_well_is_blank() -> None:
    empty = tuple(kind.model_copy(update={"density_per_mm2": 0}) for kind in PARAMS.kinds)
    flags = watch_image(drawn(kinds=empty, debris=0), "phase")[1]
    assert [flag.name for flag in flags] == ["blank"]
    assert "noise" in flags[0].reason


@pytest.mark.parametrize("value", [0, 100, 255])
@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (64, 64)])
def test_a_constant_frame_is_blank(value: int, shape: tuple[int, int]) -> None:
    assert "blank" in names(np.full(shape, value, np.uint8))


@pytest.mark.parametrize(("count", "radius_um"), [(1, 25), (3, 25), (2, 50)])
def test_bubbles(count: int, radius_um: float) -> None:
    features, flags = watch_image(drawn(bubbles=count, bubble_radius_um=radius_um), "phase")
    assert [flag.name for flag in flags] == ["bubble"]
    assert 1 <= features["bubbles"] <= count
    assert 0 < features["bubble_percent"] < 50


def test_round_nuclei_are_no_bubbles() -> None:
    y, x = np.mgrid[:256, :256]
    discs = np.zeros((256, 256))
    for cy, cx in ((60, 60), (60, 180), (180, 100)):
        discs[(y - cy) ** 2 + (x - cx) ** 2 < 14**2] = 120
    frame = np.clip(discs + np.random.default_rng(0).normal(20, 2, discs.shape), 0, 255).astype(np.uint8)
    assert names(frame, "dapi") == []


def test_every_feature_is_finite_and_large_frames_are_judged_alike() -> None:
    tile = drawn()
    large = np.tile(tile, (8, 9))
    small, big = image_features(tile), image_features(large)
    assert all(np.isfinite(v) for f in (small, big) for v in f.values())
    assert big["noise"] == pytest.approx(small["noise"], rel=0.2)
    assert big["focus_fine"] == pytest.approx(small["focus_fine"], rel=0.2)


def test_noise_is_measured_in_grey_values() -> None:
    frame = np.random.default_rng(0).normal(120, 5, (256, 256)).clip(0, 255).astype(np.uint8)
    assert image_features(frame)["noise"] == pytest.approx(5, rel=0.1)


def test_uneven_light_is_measured() -> None:
    even = image_features(drawn(vignetting=0, gradient=0))["unevenness"]
    assert image_features(drawn(vignetting=0.4, gradient=0.4))["unevenness"] > 2 * even


@pytest.mark.parametrize("name", ["phase", "Phase-1", "brightfield", "BF", "ph2"])
def test_transmitted_light_by_name(name: str) -> None:
    assert limits_for(name).bubbles


@pytest.mark.parametrize("name", ["dapi", "gfp", "red", "c0"])
def test_other_channels_are_fluorescence(name: str) -> None:
    assert not limits_for(name).bubbles


class TestRealFrames:
    """Thresholds hold on real microscopy: every frame of the two phase sets and the fluorescence set is good."""

    SETS = (("usiigaci_phase", "phase"), ("usiigaci_t98g_timelapse", "phase"), ("dsb2018_fluo", "dapi"))

    @pytest.mark.parametrize(("name", "channel"), SETS)
    def test_good_frames(self, shared_data: Path, name: str, channel: str) -> None:
        flagged = {p.name: n for p in self.files(shared_data, name) if (n := names(self.plane(p), channel))}
        assert flagged == {}

    @pytest.mark.parametrize("sigma_px", [2, 4])
    @pytest.mark.parametrize("name", ["usiigaci_phase", "usiigaci_t98g_timelapse"])
    def test_blurred_phase_frames(self, shared_data: Path, name: str, sigma_px: float) -> None:
        for path in self.files(shared_data, name)[::6]:
            assert "out-of-focus" in names(blurred(self.plane(path), sigma_px)), path.name

    def test_blurred_fluorescence(self, shared_data: Path) -> None:
        files = self.files(shared_data, "dsb2018_fluo")[::4]
        hits = sum("out-of-focus" in names(blurred(self.plane(p), 4), "dapi") for p in files)
        assert hits >= 0.85 * len(files)

    def test_overexposed_and_empty_frames(self, shared_data: Path) -> None:
        for path in self.files(shared_data, "usiigaci_phase")[::9]:
            plane = self.plane(path)
            assert "saturated" in names(overexposed(plane, 2.5)), path.name
            noise = np.random.default_rng(0).normal(126, 2, plane.shape).astype(np.uint8)
            assert names(noise) == ["blank"]

    def test_a_bubble_on_a_real_frame(self, shared_data: Path) -> None:
        """The ring of a drawn bubble, laid over real cells: dark outside, bright inside, nothing within."""
        for path in self.files(shared_data, "usiigaci_phase")[::9]:
            plane = self.plane(path).copy()
            cv2.circle(plane, (500, 500), 110, 126, -1)
            cv2.circle(plane, (500, 500), 112, 10, 14)
            cv2.circle(plane, (500, 500), 98, 245, 8)
            assert "bubble" in names(cv2.GaussianBlur(plane, (0, 0), 1)), path.name

    @staticmethod
    def files(shared: Path, name: str) -> list[Path]:
        return sorted((shared / name / "images").glob("*.tif"))

    @staticmethod
    def plane(path: Path) -> NDArray[Any]:
        plane: NDArray[Any] = read_image(path).pixels[0]
        return plane
