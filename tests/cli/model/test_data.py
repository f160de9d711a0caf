"""``cellfleet data``: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.lineage import RecordStore
from support_images import plain_rows, scene, write_folder, write_png


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_folder(tmp_path / "data", plain_rows())
    (tmp_path / "cellfleet.toml").write_text('[data]\nsource = "data"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_validate_exit_codes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "validate"]) == ExitCode.OK
    assert "0 error(s), 0 warning(s)" in capsys.readouterr().out
    write_png(project / "data" / "masks" / "f1.png", scene(1)[1] * 0)
    assert run(["data", "validate"]) == ExitCode.OK
    assert run(["data", "validate", "--strict"]) == ExitCode.FINDINGS
    (project / "data" / "masks" / "f2.png").unlink()
    capsys.readouterr()
    assert run(["data", "validate", "--json"]) == ExitCode.FINDINGS
    facts = json.loads(capsys.readouterr().out)
    assert (facts["errors"], facts["warnings"]) == (1, 1)
    assert facts["findings"][0]["file"] == "images/f2"


def test_a_source_can_be_named(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_folder(tmp_path / "it's ''' 細胞", plain_rows(3))
    assert run(["data", "validate", str(other)]) == ExitCode.OK
    assert run(["data", "validate", str(project / "none")]) == ExitCode.REFUSED
    assert "no such folder or file" in capsys.readouterr().err


def test_freeze_writes_manifest_and_record_and_prints_the_digest(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "freeze", "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    stored = json.loads((project / "dataset.json").read_text(encoding="utf-8"))
    assert stored["digest"] == facts["digest"]
    assert RecordStore(project / "records").get("data-set", facts["digest"]) == stored["manifest"]
    assert run(["data", "freeze", "--out", "again.json"]) == ExitCode.OK
    assert facts["digest"] in capsys.readouterr().out
    assert (project / "again.json").read_bytes() == (project / "dataset.json").read_bytes()


def test_freeze_refuses_errors(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "data" / "masks" / "f2.png").unlink()
    assert run(["data", "freeze"]) == ExitCode.REFUSED
    assert "images/f2" in capsys.readouterr().err
    assert not (project / "dataset.json").exists()


def test_show_and_diff(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["data", "freeze", "--out", "old.json"])
    capsys.readouterr()
    assert run(["data", "show", "old.json", "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["objects"], facts["pixel_sizes_um"]) == (9, 36, [0.5])
    assert sum(sum(row.values()) for row in facts["splits"].values()) == 9
    assert run(["data", "show", "old.json"]) == ExitCode.OK
    assert "9 images, 36 objects, 9 groups; uint8\n" in capsys.readouterr().out
    assert run(["data", "diff", "old.json", "old.json"]) == ExitCode.OK
    write_png(project / "data" / "masks" / "f1.png", scene(1, cells=3)[1])
    run(["data", "freeze", "--out", "new.json"])
    capsys.readouterr()
    assert run(["data", "diff", "old.json", "new.json"]) == ExitCode.FINDINGS
    assert "changed mask: f1" in capsys.readouterr().out
    assert run(["data", "diff", "old.json", "new.json", "--json"]) == ExitCode.FINDINGS
    found = json.loads(capsys.readouterr().out)
    assert (found["same"], found["changed_mask"]) == (False, ["f1"])


@pytest.mark.usefixtures("project")
def test_show_without_a_manifest_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "show"]) == ExitCode.REFUSED
    err = capsys.readouterr().err
    assert "no such data set version" in err
    assert "data freeze" in err
    assert "Traceback" not in err
