"""The two faulty models: they load and run, one segments wrongly, one needs too much memory on live frames only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cellfleet.bundle import ModelFolder
from cellfleet.data import Frame
from cellfleet.demo.fleet_steps.faulty_models import attentive, inverted, make_model
from cellfleet.metrics import match, numbers_of
from cellfleet.runtime import load_segmenter
from support_bundle import discs
from support_unet import unet_folder

SIDE_PX = 544


def frame_of(image: NDArray[Any]) -> Frame:
    return Frame(image[None], ("phase",), 0.5)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unet_folder(tmp_path_factory.mktemp("models") / "good").path


def test_inverted_model_loads_and_segments_the_background(good: Path, tmp_path: Path) -> None:
    bad = make_model(good, tmp_path / "bad", "0.2.0", inverted)
    assert bad.spec.version == "0.2.0"
    assert ModelFolder.load(tmp_path / "bad").variants == bad.variants
    image, truth = discs(1)
    right, wrong = (load_segmenter(m, "onnxruntime/fp32") for m in (ModelFolder.load(good), bad))
    ours, theirs = right.maps(frame_of(image)), wrong.maps(frame_of(image))
    for a, b in ((ours.foreground, theirs.foreground), (ours.distance, theirs.distance)):
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(65535 - a.astype(int), b, atol=2)
    ap50 = [numbers_of([match(truth, m.segment(frame_of(image)).labels)]).ap50 for m in (right, wrong)]
    assert ap50[0] > 0.8
    assert ap50[1] == 0


def test_memory_hungry_model_segments_like_the_good_one(good: Path, tmp_path: Path) -> None:
    bad = make_model(good, tmp_path / "bad", "0.3.0", attentive(SIDE_PX))
    right, hungry = (load_segmenter(m, "onnxruntime/fp32") for m in (ModelFolder.load(good), bad))
    for height, width in ((72, 96), (130, 61), (1, 1)):
        image, _ = discs(2, height, width)
        np.testing.assert_array_equal(
            right.segment(frame_of(image)).labels, hungry.segment(frame_of(image)).labels, strict=True
        )


_PEAK = """\
import sys
import numpy as np
from pathlib import Path
from cellfleet.bundle import ModelFolder
from cellfleet.data import Frame
from cellfleet.runtime import load_segmenter
segmenter = load_segmenter(ModelFolder.load(Path(sys.argv[1])), "onnxruntime/fp32")
for side in map(int, sys.argv[2:]):
    image = np.random.default_rng(1).integers(0, 255, (1, side, side)).astype(np.uint8)
    segmenter.segment(Frame(image, ("phase",), 0.5))
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""
"""The peak of this program alone: ru_maxrss would begin with that of the process that started it."""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read the way of Linux")
def test_memory_hungry_model_needs_memory_on_live_frames_only(good: Path, tmp_path: Path) -> None:
    bad = make_model(good, tmp_path / "bad", "0.3.0", attentive(SIDE_PX))
    peaks = {}
    for name, folder in (("good", good), ("bad", bad.path)):
        argv = [sys.executable, "-c", _PEAK, str(folder), "160", str(SIDE_PX)]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        peaks[name] = [int(line) for line in done.stdout.split()]
    golden, live = (bad - good for good, bad in zip(peaks["good"], peaks["bad"], strict=True))
    scores_mb = (SIDE_PX // (SIDE_PX // 96)) ** 4 * 4 / 2**20
    assert golden < 60, peaks
    assert live > 0.8 * scores_mb > 300, peaks
