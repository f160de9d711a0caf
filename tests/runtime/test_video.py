"""Videos frame by frame, with their times."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellfleet.data import Frame
from cellfleet.errors import ReadError
from cellfleet.runtime.video import count_frames, read_video
from support_video import moving_disc, write_video

CONTAINERS = [("clip.avi", "MJPG"), ("clip.mp4", "mp4v"), ("clip.mov", "mp4v")]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_every_frame_comes_with_its_time(tmp_path: Path, name: str, codec: str) -> None:
    written = [moving_disc(i) for i in range(7)]
    file = write_video(tmp_path / name, written, codec=codec, per_second=4.0)
    frames = list(read_video(file, ["phase"], pixel_size_um=0.65))
    assert count_frames(file) == len(frames) == 7
    assert [float(f.metadata["time_s"]) for f in frames] == [0.25 * i for i in range(7)]
    assert [f.metadata["frame_index"] for f in frames] == [str(i) for i in range(7)]
    for frame, picture in zip(frames, written, strict=True):
        assert frame.channels == ("phase",)
        assert frame.pixel_size_um == 0.65
        assert frame.pixels.shape == (1, 48, 64)
        assert np.abs(frame.pixels[0].astype(int) - picture).mean() < 4


def test_a_lossless_grey_video_comes_back_as_it_was(tmp_path: Path) -> None:
    written = [moving_disc(i) for i in range(3)]
    file = write_video(tmp_path / "clip.avi", written, codec="FFV1")
    assert all(np.array_equal(f.pixels[0], w) for f, w in zip(read_video(file, ["phase"]), written, strict=True))


def test_only_wanted_frames_are_decoded(tmp_path: Path) -> None:
    file = write_video(tmp_path / "clip.avi", [moving_disc(i) for i in range(6)])
    frames = list(read_video(file, ["phase"], wanted=lambda i: i in (1, 5)))
    assert [f.metadata["frame_index"] for f in frames] == ["1", "5"]
    assert [float(f.metadata["time_s"]) for f in frames] == [0.1, 0.5]


def test_colours_become_channels_by_the_stated_rule(tmp_path: Path) -> None:
    colour = np.zeros((48, 64, 3), np.uint8)
    colour[:] = (30, 60, 200)  # red, green, blue
    file = write_video(tmp_path / "clip.avi", [colour, colour], codec="FFV1")
    rgb = next(read_video(file, ["Red", "green", "blue"]))
    assert rgb.pixels[:, 10, 10].tolist() == pytest.approx([30, 60, 200], abs=3)
    assert next(read_video(file, ["blue"])).pixels[0, 10, 10] == pytest.approx(200, abs=3)
    luma = next(read_video(file, ["phase"])).pixels
    assert luma.shape == (1, 48, 64)
    assert luma[0, 10, 10] == pytest.approx(0.299 * 30 + 0.587 * 60 + 0.114 * 200, abs=3)
    with pytest.raises(ReadError, match="a video has red, green, blue or one grey channel"):
        list(read_video(file, ["phase", "green"]))


def noise(index: int) -> NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 255, (120, 160), np.uint8)


@pytest.mark.parametrize(("part", "good"), [(0.5, range(3, 7)), (0.97, range(8, 10))])
def test_of_a_truncated_video_the_whole_frames_come_first(tmp_path: Path, part: float, good: range) -> None:
    file = write_video(tmp_path / "clip.avi", [noise(i) for i in range(10)])
    whole = list(read_video(file, ["phase"]))
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data))])
    frames: list[Frame] = []
    with pytest.raises(ReadError, match=r"truncated or damaged: \d of 10 frames could be read"):
        frames.extend(read_video(file, ["phase"]))
    assert len(frames) in good
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, whole, strict=False))


def test_what_is_no_video_is_said_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "notes.avi"
    text.write_text("no video at all")
    with pytest.raises(ReadError, match="neither AVI nor MP4 nor MOV"):
        count_frames(text)
    file = write_video(tmp_path / "clip.mp4", [moving_disc(i) for i in range(5)], codec="mp4v")
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ReadError, match="0 frames could be read"):
        list(read_video(file, ["phase"]))
    with pytest.raises(ReadError, match="No such file"):
        list(read_video(tmp_path / "absent.avi", ["phase"]))
    assert capfd.readouterr().err == ""


def test_the_library_s_own_messages_are_heard_again_afterwards(tmp_path: Path) -> None:
    before = cv2.utils.logging.getLogLevel()
    list(read_video(write_video(tmp_path / "細胞 1.avi", [moving_disc(0)]), ["phase"]))
    assert cv2.utils.logging.getLogLevel() == before
