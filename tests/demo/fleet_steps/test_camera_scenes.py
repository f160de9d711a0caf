"""What the cameras of the demo show."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellfleet.canonical import sha256_hex
from cellfleet.data import DataSetVersion
from cellfleet.demo.fleet_steps.camera_scenes import FRAMES, Scene, held_out_scene, synthetic_scene
from cellfleet.ports import silent


def images_of(scene: Scene) -> list[NDArray[Any]]:
    with (scene.folder / "index.csv").open(newline="") as f:
        names = [row["file"] for row in csv.DictReader(f)]
    return [tifffile.imread(scene.folder / "images" / name) for name in names]


@pytest.mark.parametrize("seed", [0, 2026])
def test_a_time_lapse_is_long_wide_and_full_enough(tmp_path: Path, seed: int) -> None:
    scene = synthetic_scene(tmp_path / "scene", seed, 1 + seed % 3, silent)
    images = images_of(scene)
    assert len(images) == scene.frames == FRAMES >= 60
    assert {i.shape for i in images} == {(scene.side_px, scene.side_px)}
    assert scene.side_px >= 512
    masks = sorted((scene.folder / "masks").glob("*.tif"))
    cells = [len(np.unique(tifffile.imread(m))) - 1 for m in masks]
    assert len(cells) == FRAMES
    assert min(cells) >= 50, cells


def test_cameras_show_held_out_frames_of_own_data(tmp_path: Path) -> None:
    from cellfleet.cli.main import run
    from cellfleet.data.synthetic import SceneParams, write_data_set

    write_data_set(tmp_path / "cells", SceneParams(height_px=64, width_px=64), 0, sequences=3, frames=2)
    assert run(["data", "freeze", str(tmp_path / "cells"), "-p", str(tmp_path)]) == 0
    version = DataSetVersion.load(tmp_path / "dataset.json")
    held_out = {e.image.sha256 for e in version.split("test")}
    seen = []
    for number in (1, 2, 3):
        scene = held_out_scene(tmp_path / "scenes" / str(number), version, number)
        assert (scene.channels, scene.side_px, scene.frames) == (("phase",), 64, FRAMES)
        assert scene.pixel_size_um == version.split("test")[0].pixel_size_um
        digests = [sha256_hex(np.ascontiguousarray(i).tobytes()) for i in images_of(scene)]
        files = {sha256_hex(f.read_bytes()) for f in (scene.folder / "images").iterdir()}
        assert len(digests) == FRAMES
        assert files == held_out
        seen.append(digests[0])
    assert len(set(seen)) > 1, "instruments begin with different frames"
