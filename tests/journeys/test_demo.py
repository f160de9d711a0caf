"""The first half of ``cellfleet demo``, from the first image to the bundle's numbers, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cellfleet.canonical import sha256_file
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.demo.command_runner import WITHOUT_TORCH
from cellfleet.demo.journey import MARK
from cellfleet.demo.model_steps import epochs_for
from cellfleet.runtime import read_mask_metadata
from support_journeys import cellfleet, command, environment, leftovers, tree
from support_waiting import wait_until

NUMBERS = {"ap50", "map", "dice", "count_error", "confluence_error"}
QUICK = ["training.epochs=2", "training.features=[8,16]", "training.crop_px=64", "training.threads=1"]
EASY = ["gate.min_ap50=0", "gate.min_dice=0", "gate.min_stratum_ap50=0"]


def flags(*settings: str) -> list[str]:
    return [part for text in settings for part in ("--set", text)]


def demo(where: Path, workdir: str, *more: str, expect: int = ExitCode.OK) -> tuple[dict[str, Any], str]:
    """Run the demo; returns what --json wrote, and what it told."""
    argv = ["demo", "--data", "cells", "--workdir", workdir, "--json", f"{workdir}.json", *flags(*QUICK), *more]
    if "gate.min_dice=1" not in more:
        argv.append("--only-model")
    done = cellfleet(*argv, cwd=where, expect=expect)
    facts: dict[str, Any] = json.loads((where / f"{workdir}.json").read_bytes())
    return facts, done.stdout


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set of two kinds of cells."""
    folder = tmp_path_factory.mktemp("demo")
    cellfleet("data", "synth", "cells", "--size", "128", "--wells", "3", "--frames", "1", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def told(where: Path) -> tuple[dict[str, Any], str]:
    return demo(where, "first", *flags(*EASY))


def test_the_numbers_have_the_names_of_the_contract(where: Path, told: tuple[dict[str, Any], str]) -> None:
    facts, _ = told
    assert {*NUMBERS, "strata", "variants", "data_set", "bundle"} <= set(facts)
    assert set(facts["strata"]) == {"round", "spread"}
    assert all(set(numbers) == NUMBERS for numbers in facts["strata"].values())
    assert {"onnxruntime/fp32", "onnxruntime/int8"} <= set(facts["variants"])
    for variant in facts["variants"].values():
        assert set(variant) == {"bytes", "ms_per_frame", "ap50", "kept", "reason"}
    assert facts["variants"]["onnxruntime/fp32"]["kept"] is True
    assert set(facts["bundle"]) == {"path", "sha256", "name", "version"}
    assert sha256_file(Path(facts["bundle"]["path"])) == facts["bundle"]["sha256"]
    manifest = json.loads((where / "first" / "dataset.json").read_bytes())
    assert facts["data_set"] == manifest["digest"]
    metrics = json.loads((Path(facts["report"]).parent / "metrics.json").read_bytes())
    assert {k: metrics["numbers"][k] for k in NUMBERS} == {k: facts[k] for k in NUMBERS}


def test_the_demo_runs_commands_that_can_be_typed(where: Path, told: tuple[dict[str, Any], str]) -> None:
    _, text = told
    steps = [line for line in text.splitlines() if line.partition("/")[0].isdigit() and "/10  " in line]
    assert [line.partition("/")[0] for line in steps] == [str(n) for n in range(1, 11)]
    typed = [line.split()[2] for line in text.splitlines() if line.startswith("$ cellfleet ")]
    assert typed == "data data train export optimize bundle bundle evaluate segment lineage".split()
    assert "the complete demo took" in text
    assert leftovers(where) == []


def test_frames_it_never_saw_were_segmented_by_the_bundle_alone(where: Path, told: tuple[dict[str, Any], str]) -> None:
    facts, _ = told
    manifest = json.loads((where / "first" / "dataset.json").read_bytes())["manifest"]
    held_out = {e["image"]["sha256"] for e in manifest["entries"] if e["split"] == "test"}
    masks = list((where / "first" / "segmented").glob("*/masks/*.tif"))
    assert {read_mask_metadata(m)["source_sha256"] for m in masks} == held_out
    assert {read_mask_metadata(m)["bundle_sha256"] for m in masks} == {facts["bundle"]["sha256"]}


def test_a_process_that_cannot_import_torch_segments(where: Path, told: tuple[dict[str, Any], str]) -> None:
    """The demo's own way of running a command keeps torch out, and the bundle gives the same masks there."""
    facts, _ = told
    code = "import sys\nsys.modules['torch'] = None\n"
    out = where / "alone"
    done = cellfleet("segment", facts["bundle"]["path"], "cells", "--out", out, "--json", cwd=where, code=code)
    assert json.loads(done.stdout)["frames"] == 6
    lines = WITHOUT_TORCH.replace("from cellfleet", "import torch\nfrom cellfleet", 1)
    refused = subprocess.run(command(code=lines), env=environment(), capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in refused.stderr or "ImportError" in refused.stderr


def test_interrupted_and_run_again_it_gives_the_same_bundle(where: Path, told: tuple[dict[str, Any], str]) -> None:
    """Ctrl-C goes to all processes of the demo; the second run starts clean, and the same seed gives the same bytes."""
    argv = ["demo", "--data", "cells", "--workdir", "second", *flags(*QUICK, *EASY, "training.epochs=500")]
    argv.append("--only-model")
    with subprocess.Popen(
        command(*argv), cwd=where, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        checkpoint = where / "second" / "runs" / "demo" / "checkpoint.pt"
        wait_until(checkpoint.exists, "a checkpoint", alive=lambda: process.poll() is None)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in err
    assert "the demo stops here" in err
    assert leftovers(where / "second") == []
    facts, _ = demo(where, "second", *flags(*EASY))
    assert facts["bundle"]["sha256"] == told[0]["bundle"]["sha256"]
    assert facts["data_set"] == told[0]["data_set"]
    first, second = (Path(f["bundle"]["path"]).read_bytes() for f in (told[0], facts))
    assert first == second


def test_another_seed_and_a_gate_that_fails(where: Path, told: tuple[dict[str, Any], str]) -> None:
    facts, text = demo(where, "third", "--seed", "1", *flags("gate.min_dice=1"), expect=ExitCode.FINDINGS)
    assert facts["bundle"]["sha256"] != told[0]["bundle"]["sha256"]
    assert facts["verdict"] == "failed"
    assert "FAILED: Dice" in text
    assert "NOT passed: cellfleet evaluate " in text
    assert "the fleet is not started" in text
    assert list((where / "third" / "segmented").glob("*/masks/*.tif")), "the demo went on"


def test_a_folder_that_is_not_the_demo_s_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    (tmp_path / "file").write_text("precious, too")
    before = tree(tmp_path)
    for name in ("thesis", "file"):
        done = cellfleet("demo", "--workdir", name, cwd=tmp_path, expect=ExitCode.USAGE)
        assert f"--workdir {name} already exists and was not made by the demo" in done.stderr
        assert "hint: use a new or an empty folder" in done.stderr
    assert tree(tmp_path) == before
    done = cellfleet("demo", "--data", "absent", "--workdir", "new", cwd=tmp_path, expect=ExitCode.USAGE)
    assert "no such folder or file" in done.stderr
    assert not (tmp_path / "new").exists()


def test_images_in_the_folder_that_is_emptied_are_refused(tmp_path: Path) -> None:
    """Someone tries the demo's own images again: they must still be there afterwards."""
    images = tmp_path / "cellfleet-demo" / "data" / "images"
    images.mkdir(parents=True)
    (images / "a.tif").write_bytes(b"precious")
    (tmp_path / "cellfleet-demo" / MARK).write_bytes(b"made by the demo")
    before = tree(tmp_path)
    for data in ("cellfleet-demo/data", "cellfleet-demo"):
        done = cellfleet("demo", "--data", data, cwd=tmp_path, expect=ExitCode.USAGE)
        assert f"--data {data} lies in the folder cellfleet-demo, whose content the demo removes first" in done.stderr
    assert tree(tmp_path) == before


def test_numbers_that_cannot_be_written_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "numbers").mkdir()
    done = cellfleet("demo", "--json", "numbers", cwd=tmp_path, expect=ExitCode.USAGE)
    assert "--json numbers is a folder" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["numbers"]


def test_the_budget_counts_the_crops_that_the_flags_ask_for(tmp_path: Path, where: Path) -> None:
    cellfleet("data", "freeze", "cells", "-p", tmp_path, cwd=where)
    usual = epochs_for(tmp_path, [], 1000)
    assert epochs_for(tmp_path, ["training.crops_per_image=4"], 1000) == usual // 2


def test_places_cannot_be_moved_by_a_setting(tmp_path: Path) -> None:
    done = cellfleet("demo", "--workdir", "w", "--set", "bundle.out=x", cwd=tmp_path, expect=ExitCode.USAGE)
    assert "the demo sets this itself" in done.stderr
    assert not (tmp_path / "w").exists()
