"""OME-Zarr images, 0.4 and 0.5."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from cellfleet.data import iter_frames, read_image, read_mask
from cellfleet.data.images.reader import load_raw
from cellfleet.errors import ReadError
from support_images import scene

GREY, LABELS = scene(2)


def write_zarr(path: Path, pixels: NDArray[Any], axes: str, *, version: str = "0.5", um: float = 0.65) -> Path:
    """An OME-Zarr image with two levels; the second one is garbage that must not be read."""
    kinds = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
    listed = [{"name": a, "type": kinds[a], **({"unit": "micrometer"} if a in "yx" else {})} for a in axes]
    scale = [um if a in "yx" else 1.0 for a in axes]
    levels = [
        {"path": p, "coordinateTransformations": [{"type": "scale", "scale": [s * k for s in scale]}]}
        for p, k in (("0", 1), ("1", 2))
    ]
    image: dict[str, Any] = {"axes": listed, "datasets": levels}
    channels = {"channels": [{"label": n} for n in ("Phase", "GFP")]} if "c" in axes else None
    store = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    for level in levels:
        store.create_array(str(level["path"]), data=pixels, chunks=(*(1,) * (pixels.ndim - 2), 16, 16))
    extra = {"omero": channels} if channels else {}
    if version == "0.5":
        store.attrs["ome"] = {"version": "0.5", "multiscales": [image], **extra}
    else:
        store.attrs.update({"multiscales": [{**image, "version": "0.4"}], **extra})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_and_pixel_size(tmp_path: Path, version: str) -> None:
    two = np.stack([GREY, GREY // 2]).astype(np.uint16)
    frame = read_image(write_zarr(tmp_path / "孔.ome.zarr", two, "cyx", version=version))
    assert frame.channels == ("Phase", "GFP")
    assert frame.pixel_size_um == pytest.approx(0.65)
    np.testing.assert_array_equal(frame.pixels, two)


def test_planes_are_picked_or_asked_for(tmp_path: Path) -> None:
    stack = np.stack([GREY, GREY + 1])[:, None]
    path = write_zarr(tmp_path / "a.zarr", stack, "tzyx")
    with pytest.raises(ReadError, match="2 planes along t"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, time=1).pixels[0], GREY + 1)
    with pytest.raises(ReadError, match="no plane 5"):
        read_image(path, time=5)


def test_masks_and_listing(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "m.ome.zarr", LABELS, "yx")
    np.testing.assert_array_equal(read_mask(path), LABELS)
    assert [f.id for f in iter_frames([tmp_path])] == ["m"]


def test_digest_follows_the_pixels_and_not_the_folder(tmp_path: Path) -> None:
    a, b = (write_zarr(tmp_path / n, GREY, "yx") for n in ("a.zarr", "b.zarr"))
    c = write_zarr(tmp_path / "c.zarr", GREY + 1, "yx")
    assert load_raw(a).sha256 == load_raw(b).sha256 != load_raw(c).sha256


def test_faults_are_read_errors(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", GREY, "yx")
    chunk = next(p for p in sorted((path / "0").rglob("*")) if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:5])
    with pytest.raises(ReadError, match=r"a\.zarr"):
        read_image(path)
    meta = path / "zarr.json"
    good = json.loads(meta.read_text())
    faults: list[Callable[[dict[str, Any]], object]] = [
        lambda o: o["multiscales"][0]["axes"][0].update(type=7),
        lambda o: o["multiscales"][0].update(datasets=[]),
        lambda o: o.pop("multiscales"),
        lambda o: o.update(plate={}),
        lambda o: o["multiscales"][0]["datasets"][0].update(path="../b"),
    ]
    for break_it in faults:
        value = json.loads(json.dumps(good))
        break_it(value["attributes"]["ome"])
        meta.write_text(json.dumps(value))
        with pytest.raises(ReadError) as e:
            read_image(path)
        assert "a.zarr" in e.value.message
    meta.write_text("{")
    with pytest.raises(ReadError, match="metadata"):
        read_image(path)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="float32"):
        read_image(write_zarr(tmp_path / "a.zarr", GREY.astype(np.float32), "yx"))


@pytest.mark.parametrize("library", ["zarr", "yaozarrs"])
def test_a_missing_library_names_the_extra(tmp_path: Path, library: str) -> None:
    path = write_zarr(tmp_path / "a.zarr", GREY, "yx")
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from cellfleet.data import read_image\n"
        "from cellfleet.errors import ReadError\n"
        "try:\n    read_image(sys.argv[1])\nexcept ReadError as e:\n    print(e.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "cellfleet[formats]" in done.stdout
