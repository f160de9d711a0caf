"""``cellfleet demo`` whole: data, model, server, three instruments, bad models, faults, and the count at the end."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from cellfleet.canonical import sha256_file
from cellfleet.demo.fleet_steps.final_numbers import NUMBERS
from cellfleet.device.camera.frame_store import EXPERIMENT, FrameFile
from support_journeys import command, environment, leftovers

QUICK = (
    *("--set", "training.epochs=14", "--set", "training.threads=1", "--set", "optimize.openvino=false"),
    *("--set", "camera.interval_s=1.5"),
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """One run; folder, numbers, and what it printed."""
    where = tmp_path_factory.mktemp("demo")
    argv = ["demo", "--workdir", "w", "--json", "numbers.json", *QUICK]
    done = subprocess.run(command(*argv), cwd=where, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return where / "w", json.loads((where / "numbers.json").read_bytes()), done.stdout


@pytest.mark.timeout(1200)
def test_every_frame_is_stored_and_segmented_once(told: tuple[Path, dict[str, Any], str]) -> None:
    root, numbers, _ = told
    assert set(NUMBERS) <= set(numbers)
    files = [f for f in root.glob("instruments/*/frames/*/*.json") if f.name != EXPERIMENT]
    taken = [FrameFile.model_validate_json(f.read_bytes()) for f in files]
    assert numbers["frames_taken"] == numbers["frames_stored"] == numbers["frames_segmented"] == len(taken) > 180
    assert (numbers["frames_lost"], numbers["frames_doubled"]) == (0, 0)
    for file, frame in zip(files, taken, strict=True):
        assert sha256_file(file.parent / frame.file) == frame.taken.sha256


@pytest.mark.timeout(1200)
def test_the_bad_models_were_stopped_where_they_must_be(told: tuple[Path, dict[str, Any], str]) -> None:
    root, numbers, text = told
    assert "the gate refuses the model. An approver overrides the gate" in text
    assert "XYZ-001 refused: self-test: " in text
    assert re.search(r"XYZ-001 rolled-back: .*the segmenter uses \d+ MB", text)
    assert text.count("never offered to XYZ-002, XYZ-003") == 2
    assert "has pin 2, " in text
    assert numbers["update_s"] > 0
    assert numbers["recovery_s"] > 0
    bundle = (root / "bundles" / "demo-cells-0.1.0.bundle.zip").stat().st_size
    assert numbers["bytes_downloaded"] >= 3 * bundle
    for pointer in root.glob("instruments/*/slots/*/slot.json"):
        assert json.loads(pointer.read_bytes())["version"] == "0.1.0"


@pytest.mark.timeout(1200)
def test_the_lineage_leads_from_an_instrument_to_the_data(told: tuple[Path, dict[str, Any], str]) -> None:
    _, numbers, text = told
    lineage = text[text.index("Lineage of a mask in the fleet") :]
    assert "instrument: XYZ-001" in lineage
    assert f"* data set  {numbers['data_set']}" in lineage
    assert f"* bundle  {numbers['bundle']['sha256']}" in lineage
    assert "signature: good" in lineage


@pytest.mark.timeout(1200)
def test_nothing_stays_behind(told: tuple[Path, dict[str, Any], str]) -> None:
    root, _, _ = told
    mine = [
        p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if str(root) in " ".join(p.info["cmdline"] or [])
    ]
    assert mine == []
    assert leftovers(root) == []
