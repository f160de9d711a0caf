"""One finished project for all journeys."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from support_bundle import discs
from support_images import write_tiff
from support_journeys import BUNDLE, TOML
from support_once import Once
from support_training import tiny_data

ODD = "well A1 größe 細胞"
PROJECT = "my project größe 細胞"


@pytest.fixture(scope="session")
def story(once: Once) -> Path:
    """A project from images to masks, made by the commands, in a folder whose name has a space and other scripts."""
    return once("journeys", _tell) / PROJECT


def _tell(where: Path) -> None:
    root = where / PROJECT
    tiny_data(root / "data")
    _rename(root / "data", "f03", ODD)
    (root / "cellfleet.toml").write_text(TOML, encoding="utf-8")
    for i in range(3):
        write_tiff(root / "frames" / f"{ODD} {i}.tif", discs(i)[0])
    in_project = ["-p", str(root)]
    segment = ["segment", str(root / BUNDLE), str(root / "frames"), "--out", str(root / "out")]
    for command in (
        ["data", "freeze"],
        ["train"],
        ["export"],
        ["optimize"],
        ["bundle", "build"],
        ["evaluate", str(root / BUNDLE)],
        segment,
    ):
        assert run([*command, *in_project, "--json"]) == ExitCode.OK, command


def _rename(data: Path, old: str, new: str) -> None:
    for file in list(data.rglob(f"{old}.*")):
        file.rename(file.with_stem(new))
    with (data / "index.csv").open(encoding="utf-8", newline="") as f:
        rows = [[cell.replace(f"{old}.", f"{new}.") for cell in row] for row in csv.reader(f)]
    with (data / "index.csv").open("w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows(rows)
