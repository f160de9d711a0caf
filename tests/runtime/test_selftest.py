"""The self-test: golden frames on this machine against the truth and against what the builder saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellfleet.bundle import Bundle, open_bundle
from cellfleet.bundle.golden import npy_bytes
from cellfleet.runtime.loader import load_segmenter
from cellfleet.runtime.selftest import SelfTest, score_golden, self_test
from support_bundle import described, repacked, tiny_bundle, unpacked
from support_onnx import FP32, tiny_onnx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle")))


def changed(
    bundle: Bundle, target: Path, files: dict[str, bytes], change: Callable[[dict[str, Any]], object] = lambda _: None
) -> SelfTest:
    """The self-test of a bundle with other files."""
    opened = open_bundle(repacked(described({**unpacked(bundle.path), **files}, change), target / "x.bundle.zip"))
    return self_test(opened, opened.variants[0])


def test_it_passes_where_it_was_built(bundle: Bundle) -> None:
    found = self_test(bundle, bundle.variants[0])
    assert found.passed
    assert (found.variant, found.problem) == ("onnxruntime/fp32", "")
    assert (found.ap50, found.least_ap50, found.agreement, found.least_agreement) == (1, 0.98, 1, 0.9)
    assert found.milliseconds > 0


@pytest.mark.parametrize("network", [tiny_onnx(gain=-6.0), tiny_onnx(level=99)])
def test_another_network_fails(bundle: Bundle, tmp_path: Path, network: bytes) -> None:
    found = changed(bundle, tmp_path, {FP32: network})
    assert not found.passed
    assert found.ap50 < found.least_ap50
    assert found.agreement < found.least_agreement


def test_one_frame_that_differs_is_enough(bundle: Bundle, tmp_path: Path) -> None:
    name = "golden/02-discs/expected-onnxruntime-fp32.npy"
    found = changed(bundle, tmp_path, {name: npy_bytes(np.zeros((72, 96), np.uint16))})
    assert found.ap50 >= found.least_ap50
    assert (found.agreement, found.passed) == (0, False)


def test_a_least_ap50_that_is_not_reached(bundle: Bundle, tmp_path: Path) -> None:
    found = changed(bundle, tmp_path, {}, lambda m: m["variants"][0].update(least_golden_ap50=1.01))
    assert not found.passed


def test_the_limits_themselves_are_good(bundle: Bundle, tmp_path: Path) -> None:
    def strict(manifest: dict[str, Any]) -> None:
        manifest["variants"][0]["least_golden_ap50"] = 1.0
        manifest["tolerances"]["onnxruntime"]["least_agreement"] = 1.0

    found = changed(bundle, tmp_path, {}, strict)
    assert (found.least_ap50, found.least_agreement) == (found.ap50, found.agreement) == (1, 1)
    assert found.passed


def test_golden_frames_are_scored_one_by_one_and_together(bundle: Bundle) -> None:
    segmenter = load_segmenter(bundle, "onnxruntime/fp32")
    first, second = bundle.golden()
    cropped = replace(second, truth=np.where(second.truth <= 2, second.truth, 0), expected={})
    scores = score_golden(segmenter, [first, cropped])
    assert [(f.name, f.count, f.ap50) for f in scores.frames] == [
        (first.name, 6, 1.0),
        (second.name, 6, pytest.approx(2 / 6)),
    ]
    assert scores.ap50 == pytest.approx(8 / 12)
    assert scores.agreement == 1
    assert scores.milliseconds == max(f.milliseconds for f in scores.frames)


def test_a_bundle_without_golden_frames_proves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    found = changed(bundle, tmp_path, {}, lambda m: m.update(golden=[]))
    assert (found.problem, found.passed) == ("the bundle has no golden frames", False)


def test_a_network_that_gives_no_numbers_is_a_problem_of_its_variant(bundle: Bundle, tmp_path: Path) -> None:
    found = changed(bundle, tmp_path, {FP32: tiny_onnx(gain=float("nan"))})
    assert not found.passed
    assert "not numbers" in found.problem


def test_a_variant_whose_engine_is_not_here(bundle: Bundle, tmp_path: Path) -> None:
    found = changed(bundle, tmp_path, {}, lambda m: m["variants"][0].update(engine="tensorrt"))
    assert not found.passed
    assert found.problem
