"""Readers: what is read, what is refused, and how a refusal sounds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellfleet.data import Frame, read_image, read_mask
from cellfleet.data.images.reader import Raw, decode_image, load_raw
from cellfleet.errors import ReadError
from support_images import scene, write_png, write_tiff

GREY8, LABELS = scene(1)
GREY16 = GREY8.astype(np.uint16) * 200


@pytest.mark.parametrize("pixels", [GREY8, GREY16], ids=["uint8", "uint16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"compression": "zlib"},
        {"compression": "lzw", "predictor": True},
        {"imagej": True},
    ],
    ids=str,
)
def test_tiff_kinds_give_the_stored_pixels(tmp_path: Path, pixels: Any, options: dict[str, Any]) -> None:
    frame = read_image(write_tiff(tmp_path / "a.tif", pixels, **options), channels=["phase"])
    assert frame.channels == ("phase",)
    assert frame.pixels.dtype == pixels.dtype
    assert frame.pixels.flags.c_contiguous
    np.testing.assert_array_equal(frame.pixels[0], pixels)


@pytest.mark.parametrize("pixels", [GREY8, GREY16], ids=["uint8", "uint16"])
def test_png_and_names_in_any_script(tmp_path: Path, pixels: Any) -> None:
    frame = read_image(write_png(tmp_path / "細胞 影像 ä" / "孔 A1.png", pixels))
    assert (frame.channels, frame.height, frame.width) == (("c0",), 48, 64)
    np.testing.assert_array_equal(frame.pixels[0], pixels)


def test_tiff_with_a_name_in_another_script(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(write_tiff(tmp_path / "孔 A1.tif", GREY16)).pixels[0], GREY16)


def test_format_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    file = write_png(tmp_path / "a.tif", GREY8)
    np.testing.assert_array_equal(read_image(file).pixels[0], GREY8)


def test_ome_tiff_gives_channels_pixel_size_and_metadata(tmp_path: Path) -> None:
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": ["Phase", "GFP"]},
        "PhysicalSizeX": 650,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 650,
        "PhysicalSizeYUnit": "nm",
        "Plane": {"ExposureTime": [0.05, 0.1], "ExposureTimeUnit": ["s", "s"], "DeltaT": [2, 2]},
    }
    file = write_tiff(tmp_path / "a.ome.tif", np.stack([GREY16, GREY16 // 2]), ome=True, metadata=metadata)
    frame = read_image(file, pixel_size_um=9.0)
    assert frame.channels == ("Phase", "GFP")
    assert frame.pixel_size_um == pytest.approx(0.65)
    assert frame.metadata["exposure_ms"] == "50"
    assert read_image(file, channels=["gfp"]).pixels[0].max() == (GREY16 // 2).max()
    with pytest.raises(ReadError, match="red are wanted"):
        read_image(file, channels=["red"])


def test_pixel_size_of_imagej_and_of_tags(tmp_path: Path) -> None:
    imagej = write_tiff(
        tmp_path / "a.tif", GREY8, imagej=True, resolution=(1 / 0.87, 1 / 0.87), metadata={"unit": "um"}
    )
    cm = write_tiff(tmp_path / "b.tif", GREY8, resolution=(20000, 20000), resolutionunit="CENTIMETER")
    printer = write_tiff(tmp_path / "c.tif", GREY8, resolution=(72, 72), resolutionunit="INCH")
    assert read_image(imagej).pixel_size_um == pytest.approx(0.87, rel=1e-4)
    assert read_image(cm).pixel_size_um == pytest.approx(0.5)
    assert read_image(printer).pixel_size_um is None
    assert read_image(printer, pixel_size_um=0.3).pixel_size_um == 0.3


def test_several_times_need_a_choice(tmp_path: Path) -> None:
    stack = np.stack([GREY8, GREY8 + 1, GREY8 + 2])
    file = write_tiff(tmp_path / "a.ome.tif", stack, ome=True, metadata={"axes": "TYX"})
    with pytest.raises(ReadError, match="several times"):
        read_image(file)
    np.testing.assert_array_equal(read_image(file, time=2).pixels[0], GREY8 + 2)
    with pytest.raises(ReadError, match="no time 3"):
        read_image(file, time=3)


def test_unnamed_pages_are_channels_only_when_so_many_are_wanted(tmp_path: Path) -> None:
    file = write_tiff(tmp_path / "a.tif", np.stack([GREY8, GREY8 // 2]), metadata=None)
    with pytest.raises(ReadError, match="2 pages"):
        read_image(file)
    assert read_image(file, channels=["phase", "green"]).channels == ("phase", "green")


def test_colour_becomes_named_channels_or_is_refused(tmp_path: Path) -> None:
    colour = np.stack([GREY8, GREY8 // 2, GREY8 // 3], axis=-1)
    for file in (
        write_png(tmp_path / "a.png", colour),
        write_tiff(tmp_path / "a.tif", colour, photometric="rgb"),
    ):
        assert read_image(file).channels == ("red", "green", "blue")
        np.testing.assert_array_equal(read_image(file, channels=["blue"]).pixels[0], GREY8 // 3)
        with pytest.raises(ReadError, match="red, green and blue differ"):
            read_image(file, channels=["phase"])
    grey = write_png(tmp_path / "g.png", np.stack([GREY8] * 3, axis=-1))
    np.testing.assert_array_equal(read_image(grey, channels=["phase"]).pixels, GREY8[None])


def test_one_pixel_and_one_value(tmp_path: Path) -> None:
    one = np.full((1, 1), 65535, np.uint16)
    for file in (write_tiff(tmp_path / "a.tif", one), write_png(tmp_path / "a.png", one)):
        assert read_image(file).pixels.tolist() == [[[65535]]]


@pytest.mark.parametrize(
    ("pixels", "word"),
    [
        (GREY8.astype(np.float32), "float32"),
        (GREY8.astype(np.float64), "float64"),
        (GREY8.astype(np.int16), "int16"),
        (GREY8.astype(np.uint32), "uint32"),
    ],
    ids=["float32", "float64", "int16", "uint32"],
)
def test_other_pixels_are_refused_with_a_way_out(tmp_path: Path, pixels: Any, word: str) -> None:
    file = write_tiff(tmp_path / "deep.tif", pixels)
    with pytest.raises(ReadError, match=word) as e:
        read_image(file)
    assert str(file) in e.value.message
    assert "16" in e.value.hint


def test_jpeg_is_refused_alone_and_inside_a_tiff(tmp_path: Path) -> None:
    fine, data = cv2.imencode(".jpg", GREY8)
    assert fine
    for name in ("a.jpg", "a.tif"):
        (tmp_path / name).write_bytes(data.tobytes())
        with pytest.raises(ReadError, match="JPEG is refused"):
            read_image(tmp_path / name)
    with pytest.raises(ReadError, match="JPEG compression"):
        read_image(write_tiff(tmp_path / "b.tif", GREY8, compression="jpeg"))


@pytest.mark.parametrize("data", [b"", b"nonsense", b"II*\x00", b"\x89PNG\r\n\x1a\n", b"BM123456", b"PK\x03\x04zip"])
def test_what_is_no_image_is_a_clear_error(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(data)
    with pytest.raises(ReadError, match=r"a\.tif: ") as e:
        read_image(file)
    assert e.value.hint


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        read_image(tmp_path / "none.tif")
    with pytest.raises(ReadError, match="not an OME-Zarr image"):
        read_image(tmp_path)


def _files(folder: Path) -> list[Path]:
    return [
        write_tiff(folder / "plain.tif", GREY16),
        write_tiff(folder / "zip.tif", GREY16, compression="zlib", rowsperstrip=8),
        write_tiff(folder / "tiled.tif", GREY16, tile=(16, 16)),
        write_tiff(folder / "ome.ome.tif", GREY16, ome=True),
        write_png(folder / "a.png", GREY16),
    ]


def test_a_file_cut_anywhere_is_an_error_or_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for file in _files(tmp_path):
        data = file.read_bytes()
        for end in range(8, len(data), max(len(data) // 60, 1)):
            try:
                frame = decode_image(Raw(data[:end]), file.name)
            except ReadError as e:
                assert file.name in e.message  # noqa: PT017 - the other outcome is checked below
            else:
                np.testing.assert_array_equal(frame.pixels[0], GREY16)
    assert capfd.readouterr() == ("", "")


_BYTES: dict[str, Callable[[Path], bytes]] = {
    "tiff": lambda p: write_tiff(p / "a.tif", GREY8[:12, :12], compression="zlib").read_bytes(),
    "png": lambda p: write_png(p / "a.png", GREY8[:12, :12]).read_bytes(),
}


@pytest.fixture(scope="module", params=sorted(_BYTES))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _BYTES[request.param](tmp_path_factory.mktemp("bytes"))


@settings(max_examples=60, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_gives_a_frame_or_a_read_error(whole: bytes, at: float, value: int) -> None:
    data = bytearray(whole)
    data[int(at * len(data))] = value
    try:
        frame = decode_image(Raw(bytes(data)), "a")
    except ReadError:
        return
    assert isinstance(frame, Frame)


def test_a_header_that_announces_too_much_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "big.tif"
    tifffile.imwrite(file, np.zeros((4, 4), np.uint16))
    data = bytearray(file.read_bytes())
    for tag in (256, 257):  # ImageWidth, ImageLength
        at = data.find(tag.to_bytes(2, "little") + b"\x04\x00")
        at = at if at >= 0 else data.find(tag.to_bytes(2, "little") + b"\x03\x00")
        data[at + 2 : at + 12] = b"\x04\x00\x01\x00\x00\x00" + (60000).to_bytes(4, "little")
    with pytest.raises(ReadError, match="limit"):
        decode_image(Raw(bytes(data)), "big.tif")


def test_a_huge_tiff_needs_about_twice_its_size(tmp_path: Path) -> None:
    """64 MB here stand for the 800 MB of 20,000 x 20,000: peak memory is proportional, 2.0 times is the aim."""
    size = 5800
    file = write_tiff(tmp_path / "a.tif", np.zeros((size, size), np.uint16))
    code = (
        "import resource, sys, numpy, tifffile, cv2\n"
        "from cellfleet.data import read_image\n"
        "from cellfleet.data.version import pixels_digest\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "frame = read_image(sys.argv[1]); pixels_digest(frame.pixels)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 2.2 * file.stat().st_size


def test_a_missing_decoder_names_the_extra(tmp_path: Path) -> None:
    file = write_tiff(tmp_path / "a.tif", GREY16, compression="lzw")
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from cellfleet.data import read_image\n"
        "from cellfleet.errors import ReadError\n"
        "try:\n    read_image(sys.argv[1])\n"
        "except ReadError as e:\n    print(e.message, '|', e.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert "a.tif" in done.stdout
    assert "cellfleet[formats]" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32])
def test_masks_of_every_integer(tmp_path: Path, dtype: Any) -> None:
    mask = read_mask(write_tiff(tmp_path / "m.tif", LABELS.astype(dtype)))
    assert mask.dtype == np.uint32
    np.testing.assert_array_equal(mask, LABELS)


def test_seventy_thousand_objects_in_a_mask(tmp_path: Path) -> None:
    labels = np.arange(70_000, dtype=np.uint32).reshape(250, 280)
    assert int(read_mask(write_tiff(tmp_path / "m.tif", labels)).max()) == 69_999


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        ((LABELS > 0).astype(np.uint8) * 255, "binary mask"),
        (LABELS > 0, "bool"),
        (LABELS.astype(np.float32), "float32"),
        (LABELS.astype(np.int16) - 1, "negative"),
        (np.stack([LABELS, LABELS]), "2 channels or pages"),
    ],
    ids=["binary", "bool", "float", "negative", "pages"],
)
def test_masks_that_tell_no_objects_apart_are_refused(tmp_path: Path, mask: Any, word: str) -> None:
    with pytest.raises(ReadError, match=word) as e:
        read_mask(write_tiff(tmp_path / "m.tif", mask))
    assert "instance labels" in e.value.hint


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    file = write_png(tmp_path / "a.png", GREY8)
    assert load_raw(file).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_frame_checks_itself() -> None:
    with pytest.raises(ReadError, match="float64"):
        Frame(np.zeros((1, 2, 2)), ("a",))
    with pytest.raises(ReadError, match="2 channel"):
        Frame(np.zeros((2, 2, 2), np.uint8), ("a", "a"))
    assert Frame(np.zeros((1, 2, 2), np.uint8), ("a",)).with_pixel_size(0.5).pixel_size_um == 0.5
