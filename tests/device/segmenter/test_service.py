"""The segmenter program by its protocol: real process, real bundle; what is not understood never ends it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cellfleet.canonical import sha256_file
from cellfleet.device.segmenter.thumbnails import LONGEST_PX, frame_jpeg, overlay_jpeg
from support_bundle import discs, tiny_bundle
from support_images import write_png


class Program:
    """The segmenter as a child."""

    def __init__(self, bundle: Path, *extra: str) -> None:
        argv = [
            sys.executable,
            "-m",
            "cellfleet.device.segmenter.main",
            "--bundle",
            str(bundle),
            "--threads",
            "1",
            *extra,
        ]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.child = subprocess.Popen(argv, **pipes)
        self.first = self.read()

    def read(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        found: dict[str, Any] = json.loads(self.child.stdout.readline() or b"{}")
        return found

    def ask(self, line: bytes | dict[str, Any]) -> dict[str, Any]:
        assert self.child.stdin is not None
        self.child.stdin.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        self.child.stdin.flush()
        return self.read()

    def close(self) -> int:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.close()
        code = self.child.wait(60)
        self.child.stdout.close()
        return code


StartFn = Callable[..., Program]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def start() -> Iterator[StartFn]:
    running: list[Program] = []

    def new(bundle: Path, *extra: str) -> Program:
        running.append(Program(bundle, *extra))
        return running[-1]

    yield new
    for program in running:
        program.child.kill()
        program.close()


def request(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    image = write_png(tmp_path / "frames" / "e1" / "f00000.png", discs(1)[0])
    facts = {
        "experiment": "e1", "frame": "f00000", "index": 0, "well": "B3", "field": 1, "time_s": 12.5,
        "sha256": sha256_file(image), "taken_at": "2026-01-31T12:00:00Z", "bytes": image.stat().st_size,
    }  # fmt: skip
    base = {
        "id": 1, "do": "segment", "frame": str(image), "facts": facts, "channels": ["phase"], "pixel_size_um": 0.5,
        "out": str(tmp_path / "results" / "e1"), "overlay": True, "thumbnail": "",
    }  # fmt: skip
    return base | changes


def test_a_frame(start: StartFn, bundle: Path, tmp_path: Path) -> None:
    program = start(bundle)
    ready = program.first
    assert (ready["event"], ready["protocol"], ready["variant"]) == ("ready", 1, "onnxruntime/fp32")
    assert ready["origin"]["model_sha256"] == sha256_file(bundle)
    answer = program.ask(request(tmp_path, thumbnail=str(tmp_path / "small" / "x.jpg")))
    assert (answer["id"], answer["event"]) == (1, "segmented")
    assert answer["row"]["run_digest"] == ready["run_digest"]
    assert answer["row"]["count"] == 6
    assert answer["row"]["features"]["objects"] == 6
    for kind in ("mask", "overlay", "thumbnail", "thumbnail_overlay"):
        assert Path(answer["files"][kind]).is_file()
    again = program.ask(request(tmp_path, id=2))
    assert again["row"]["mask_sha256"] == answer["row"]["mask_sha256"]
    run = tmp_path / "results" / "e1" / ready["run_digest"][:12]
    assert len(list((run / "rows").iterdir())) == 1
    assert program.ask({"id": 3, "do": "tables", "out": str(tmp_path / "results" / "e1")})["frames"] == 1
    table = (run / "frames.csv").read_text(encoding="utf-8")
    assert "B3" in table
    assert "../../frames/e1/f00000.png" in table
    assert program.close() == 0


def test_what_is_not_understood_is_answered(start: StartFn, bundle: Path, tmp_path: Path) -> None:
    program = start(bundle)
    for line in (b"no json", b"[]", b"{}", b'"x"'):
        assert program.ask(line)["event"] == "failed"
    assert "unknown request" in program.ask({"id": 4, "do": "dance"})["message"]
    assert program.ask({"id": 5, "do": "segment"})["event"] == "failed"
    assert program.ask({"id": 6, "do": "ping"}) | {"memory_mb": 0} == {"id": 6, "event": "pong", "memory_mb": 0}
    other = program.ask(request(tmp_path, id=7, channels=["green"]))
    assert (other["event"], other["kind"]) == ("failed", "model")
    assert "phase" in other["message"]
    gone = program.ask(request(tmp_path, id=8, frame=str(tmp_path / "gone.png")))
    assert (gone["event"], gone["kind"]) == ("failed", "frame")
    blocked = tmp_path / "blocked"
    blocked.write_bytes(b"")
    assert program.ask(request(tmp_path, id=9, out=str(blocked / "e1")))["kind"] == "disk"
    assert program.ask(request(tmp_path, id=10))["event"] == "segmented"


@pytest.mark.parametrize(("extra", "word"), [(("--variant", "tensorrt/int8"), "variant"), ((), "bundle")])
def test_a_refusal(start: StartFn, bundle: Path, tmp_path: Path, extra: tuple[str, ...], word: str) -> None:
    wrong = tmp_path / "wrong.zip"
    wrong.write_bytes(b"PK no")
    program = start(bundle if extra else wrong, *extra)
    assert program.first["event"] == "refused"
    assert word in program.first["message"]
    assert program.child.wait(60) == 3


def test_golden_frames_of_a_bundle_that_cannot_be_read(start: StartFn, bundle: Path, tmp_path: Path) -> None:
    program = start(bundle)
    answer = program.ask({"id": 1, "do": "selftest", "golden_of": [str(bundle), str(tmp_path / "gone")]})
    if answer["event"] == "selftest":
        assert [bool(r["problem"]) for r in answer["results"]] == [False, True]
    else:
        assert "gone" in answer["message"]


def test_it_needs_nothing_but_the_base_install(bundle: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'fastapi', 'sqlalchemy', 'pyarrow', 'scipy', 'openvino', 'jinja2', 'zarr', 'monai'):\n"
        "    sys.modules[name] = None\n"
        "import cellfleet.device.scheduling.scheduler, cellfleet.device.server.telemetry, cellfleet.device.camera.process\n"
        "from cellfleet.device.segmenter.main import main\n"
        f"sys.exit(main(['--bundle', {str(bundle)!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b'{"id": 1, "do": "ping"}\n', capture_output=True, check=True
    )
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert events == ["ready", "pong"]


def test_small_pictures() -> None:
    image, labels = discs(1, 700, 1000)
    for data in (frame_jpeg(image.astype(np.uint16) * 200), overlay_jpeg(image, labels.astype(np.uint32))):
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        assert max(picture.shape) == LONGEST_PX
        assert len(data) < 100_000
    assert frame_jpeg(np.zeros((8, 8), np.uint8))[:3] == b"\xff\xd8\xff"


def test_pixel_sizes_by_rank(start: StartFn, bundle: Path, tmp_path: Path) -> None:
    """What the source tells counts before the file, the settings where neither tells."""
    program = start(bundle)
    ranked = []
    for told, default in ((0.5, 2.0), (None, 2.0), (None, None)):
        changes = {"pixel_size_um": told, "default_pixel_size_um": default, "out": str(tmp_path / f"{told}-{default}")}
        row = program.ask(request(tmp_path, **changes))["row"]
        ranked.append((row["features"]["area_um2_p50"] or 0.0) / row["features"]["area_px_p50"])
    assert ranked == [0.25, 4.0, 0.0]
