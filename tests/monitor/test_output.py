"""Statistics of a segmentation, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cellfleet.monitor import output_features


def table(*areas: float) -> dict[str, np.ndarray]:
    count = len(areas)
    return {
        "area_px": np.array(areas, np.int64),
        "eccentricity": np.linspace(0.2, 0.8, count) if count else np.zeros(0),
        "mean_probability": np.full(count, 0.9),
    }


def test_objects_and_map() -> None:
    foreground = np.zeros((10, 10), np.uint16)
    foreground[:2] = 65535
    foreground[2] = 32768
    found = output_features(table(10, 20, 30), foreground, 0.5)
    assert found["objects"] == 3
    assert found["area_px_p50"] == 20
    assert found["area_um2_p50"] == 5
    assert found["eccentricity_p50"] == pytest.approx(0.5)
    assert found["probability_mean"] == pytest.approx(0.9)
    assert found["foreground_percent"] == 30
    assert found["uncertain_percent"] == 10
    assert found["entropy_bits"] == pytest.approx(0.1, abs=0.02)


def test_no_objects_and_no_pixel_size() -> None:
    found = output_features(table(), np.full((8, 8), 32768, np.uint16))
    assert found["objects"] == 0
    assert [found[k] for k in ("area_px_p50", "area_um2_p50", "eccentricity_p50", "probability_mean")] == [None] * 4
    assert found["entropy_bits"] == pytest.approx(1, abs=0.01)
    assert output_features(table(5), np.zeros((8, 8), np.uint16))["area_um2_p50"] is None
