"""A bundle of format 1, kept in the repository, stays readable, verifiable and usable for ever.

It holds the tiny network of ``support_onnx`` and was written by cellfleet 0.1.0. It is never written again; its digest says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellfleet.bundle import open_bundle
from cellfleet.bundle.validity import check_description, check_test_tensors
from cellfleet.canonical import sha256_file
from cellfleet.runtime.selftest import self_test

FORMAT_1 = Path(__file__).parent / "data" / "format-1.bundle.zip"
SHA256 = "c865d3d4d3ecd8f0a0028a5f35223021b99d25eb10d70b3dd70507fa18d83e8e"


def test_it_is_the_file_that_was_kept() -> None:
    assert sha256_file(FORMAT_1) == SHA256
    assert FORMAT_1.stat().st_size < 150_000


def test_it_is_read() -> None:
    bundle = open_bundle(FORMAT_1)
    manifest = bundle.manifest
    assert (manifest.format_version, manifest.name, manifest.version) == (1, "tiny", "1.0.0")
    assert (manifest.spec.channels, manifest.spec.stride, manifest.spec.halo_px) == (("phase",), 4, 8)
    assert [h.name for h in manifest.spec.heads] == ["foreground", "distance"]
    assert manifest.lineage.cellfleet_version == "0.1.0"
    (frame,) = bundle.golden()
    assert frame.pixels.dtype == np.uint8
    assert (frame.pixels.shape, int(frame.truth.max())) == ((1, 72, 96), 6)


def test_it_still_does_what_it_promised() -> None:
    bundle = open_bundle(FORMAT_1)
    assert check_description(FORMAT_1)
    assert check_test_tensors(bundle) < 1e-4
    assert [self_test(bundle, v).passed for v in bundle.variants] == [True]
