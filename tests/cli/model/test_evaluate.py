"""``cellfleet evaluate``: tables, exit codes, decision records on the command line."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.lineage import RecordStore
from support_bundle import tiny_bundle
from support_evaluation import disc_data
from support_onnx import tiny_folder

BUNDLE = "bundles/tiny-1.0.0.bundle.zip"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a data set version, a bundle that finds discs and a model folder that finds nothing."""
    root = tmp_path_factory.mktemp("project")
    (root / "cellfleet.toml").write_text('[data]\nsource = "data"\n[evaluation]\napprover = "Grace"\n')
    data = disc_data(root)
    tiny_bundle(root, data_set=data.digest)
    tiny_folder(root / "blind", level=99.0, data_set=data.digest)
    return root


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def facts(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_good_bundle_passes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", BUNDLE, "dataset.json"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert "tiny 1.0.0, onnxruntime/fp32, split test" in out
    for line in ("A  ", "B  ", "all frames  ", "passed: AP@0.5 is ", "passed: AP@0.5 of A is ", "the gate passed"):
        assert any(text.startswith(line) for text in out.splitlines()), line
    assert "evaluating: 4/4 tiny 1.0.0 onnxruntime/fp32: " in err
    (folder,) = (project / "evaluations").iterdir()
    assert f"report {folder / 'report.html'}" in out
    ((digest, _),) = RecordStore(project / "records").all("decision")
    assert f"decision record {digest}" in out


def test_json_has_the_facts_and_nothing_else(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", BUNDLE, "--json", "--out", str(tmp_path / "out"), "--approver", "Ada"]) == ExitCode.OK
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert (found["verdict"], found["variant"], found["folder"]) == (
        "passed",
        "onnxruntime/fp32",
        str(tmp_path / "out"),
    )
    envelope = json.loads((tmp_path / "out" / "decision.json").read_text(encoding="utf-8"))
    assert json.loads(base64.b64decode(envelope["payload"]))["approver"] == "Ada"
    assert RecordStore(project / "records").get("decision", found["decision"]) == envelope


def test_a_failed_gate_exits_with_1_and_names_the_numbers(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del project
    assert run(["evaluate", "blind", "--champion", BUNDLE]) == ExitCode.FINDINGS
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.startswith("FAILED: ")]
    assert len(failed) == 5  # AP, Dice, two strata, champion
    assert "below the 1.000 of the champion tiny 1.0.0" in failed[-1]
    assert "no decision record: a model folder can still change" in out


def test_thresholds_come_from_the_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del project
    assert run(["evaluate", BUNDLE, "--set", "gate.max_confluence_error=0"]) == ExitCode.FINDINGS
    assert "FAILED: Confluence error" in capsys.readouterr().out


def test_a_decision_record_is_verified(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["evaluate", BUNDLE, "--out", str(out)]) == ExitCode.OK
    check = ["evaluate", BUNDLE, "--verify", str(out / "decision.json")]
    capsys.readouterr()
    assert run(check) == ExitCode.OK
    text = capsys.readouterr().out
    assert "the signature is valid" in text
    assert "tiny 1.0.0: passed; approved by Grace" in text
    assert run([*check, "--json"]) == ExitCode.OK
    assert facts(capsys)["verdict"] == "passed"

    assert run([*check, "--set", "gate.min_ap50=0.1"]) == ExitCode.REFUSED
    assert "about another policy" in capsys.readouterr().err
    assert run(["evaluate", "blind", *check[2:]]) == ExitCode.REFUSED
    assert "about another bundle" in capsys.readouterr().err
    other = disc_data(tmp_path / "other", count=6, first_seed=50)
    assert run(["evaluate", BUNDLE, str(other.root.parent / "dataset.json"), *check[2:]]) == ExitCode.REFUSED
    assert "about another data set version" in capsys.readouterr().err
    assert run([*check, "--set", "lineage.key=elsewhere.pem"]) == ExitCode.REFUSED
    assert "no public key" in capsys.readouterr().err

    envelope = json.loads((out / "decision.json").read_text(encoding="utf-8"))
    payload = base64.b64decode(envelope["payload"]).replace(b'"Grace"', b'"Mallory"')
    forged = {**envelope, "payload": base64.b64encode(payload).decode()}
    (out / "decision.json").write_text(json.dumps(forged), encoding="utf-8")
    assert run(check) == ExitCode.REFUSED
    assert "signature is not good" in capsys.readouterr().err
    assert project.is_dir()


def test_mistakes_are_told_in_plain_words(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, code, message in (
        (["none.zip"], ExitCode.REFUSED, "none.zip"),
        ([str(project / "data")], ExitCode.REFUSED, "is not a model folder"),
        ([BUNDLE, "none.json"], ExitCode.REFUSED, "no such data set version"),
        ([BUNDLE, "--split", "tset"], ExitCode.USAGE, "unknown split"),
        ([BUNDLE, "--variant", "openvino/int8"], ExitCode.REFUSED, "no variant"),
        ([BUNDLE, "--champion", "none.json"], ExitCode.REFUSED, "cannot read none.json"),
        ([BUNDLE, "--out", str(project)], ExitCode.REFUSED, "is not an evaluation"),
        ([BUNDLE, "--out", "cellfleet.toml/x"], ExitCode.STORAGE, "that name already exists"),
        ([BUNDLE, "--verify", "cellfleet.toml"], ExitCode.REFUSED, "not valid JSON"),
    ):
        assert run(["evaluate", *argv]) == code, argv
        err = capsys.readouterr().err
        assert message in err
        assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
