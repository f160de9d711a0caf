"""``cellfleet lineage``: the chain of a mask, a row, a run and a bundle; what is missing and what cannot be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellfleet.canonical import canonical_bytes, sha256_file
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run
from cellfleet.lineage import RecordStore, SigningKey, sign
from support_bundle import discs, tiny_bundle
from support_images import write_tiff

Capture = pytest.CaptureFixture[str]


class Story:
    """A project whose bundle drew masks: its records, its key, its results."""

    def __init__(self, root: Path, capsys: Capture) -> None:
        self.root, self.capsys = root, capsys
        (root / "cellfleet.toml").write_text("")
        self.store = RecordStore(root / "records")
        self.data_set = self.store.put("data-set", {"entries": [{"split": "train"}, {"split": "test"}]})
        self.training = self.store.put("training", {"seed": 3, "epochs": 9})
        self.bundle = tiny_bundle(root, data_set=self.data_set, training_run=self.training)
        self.key = SigningKey.load_or_create(root / "keys" / "decision.pem")
        self.decide()
        write_tiff(root / "frames" / "t0.tif", discs(0)[0])
        self.segmented = self.segment()
        self.folder = Path(self.segmented["folder"])

    def decide(self) -> str:
        payload = {"bundle": sha256_file(self.bundle), "verdict": "passed", "approver": "Ada Lovelace"}
        return self.store.put("decision", sign(payload, self.key))

    def segment(self, *options: str) -> dict[str, Any]:
        arguments = ["segment", str(self.bundle), str(self.root / "frames"), "--out", "out", "--json", *options]
        assert run(arguments) == ExitCode.OK
        found: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return found

    def ask(self, what: str | Path, *options: str, code: ExitCode = ExitCode.OK) -> dict[str, dict[str, Any]]:
        assert run(["lineage", str(what), "--json", *options]) == code
        return {link["what"]: link for link in json.loads(self.capsys.readouterr().out)["links"]}


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Story:
    monkeypatch.setenv("CELLFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return Story(tmp_path, capsys)


def problems(links: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: link["problem"] for name, link in links.items() if link["problem"]}


def test_the_chain_of_a_mask_is_complete(story: Story) -> None:
    links = story.ask(story.folder / "masks" / "t0.tif")
    assert list(links) == ["mask", "run", "bundle", "decision", "training", "data set", "project"]
    assert problems(links) == {}
    assert links["mask"]["facts"]["frame"] == "t0"
    assert links["mask"]["digest"] == sha256_file(story.folder / "masks" / "t0.tif")
    assert links["run"]["digest"] == story.segmented["run_digest"]
    assert links["run"]["facts"]["variant"] == "onnxruntime/fp32"
    assert links["run"]["facts"]["engine"].startswith("onnxruntime ")
    assert links["bundle"]["digest"] == sha256_file(story.bundle)
    assert links["decision"]["facts"]["approver"] == "Ada Lovelace"
    assert links["decision"]["facts"]["signature"] == "good"
    assert links["training"]["digest"] == story.training
    assert links["data set"]["digest"] == story.data_set
    assert links["project"]["facts"]["commit"] == "no git"


def test_it_can_be_read_by_people(story: Story) -> None:
    assert run(["lineage", str(story.folder / "masks" / "t0.tif")]) == ExitCode.OK
    text = story.capsys.readouterr().out
    for line in (f"* run  {story.segmented['run_digest']}", f"* data set  {story.data_set}", "|   signature: good"):
        assert line in text.splitlines()
    assert "    commit: no git" in text.splitlines()


@pytest.mark.parametrize("name", ["objects.csv#2", "objects.parquet#2", "frames.csv#1", "frames.parquet#1"])
def test_a_row_has_the_same_chain(story: Story, name: str) -> None:
    links = story.ask(f"{story.folder}/{name}")
    assert problems(links) == {}
    assert next(iter(links)) == "row"
    assert links["row"]["facts"]["frame"] == "t0"
    assert str(links["row"]["facts"].get("id", "2")) == "2"
    assert links["bundle"]["digest"] == sha256_file(story.bundle)


def test_a_run_digest_is_found_among_the_records(story: Story) -> None:
    links = story.ask(story.segmented["run_digest"][:12])
    assert next(iter(links)) == "run"
    assert problems(links) == {}
    assert run(["lineage", "0" * 12]) == ExitCode.REFUSED
    assert f"no run {'0' * 12} in" in story.capsys.readouterr().err


def test_a_bundle_begins_its_own_chain(story: Story) -> None:
    links = story.ask(story.bundle)
    assert list(links) == ["bundle", "decision", "training", "data set", "project"]
    assert problems(links) == {}


def test_without_records_the_gaps_are_said(story: Story, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    links = story.ask(story.folder / "masks" / "t0.tif", "--project", str(tmp_path / "elsewhere" / ".."), "--set",
                      "lineage.records=none")  # fmt: skip
    found = problems(links)
    assert set(found) == {"decision", "training", "data set"}
    assert found["decision"].startswith("no decision record of this bundle")


def test_a_moved_bundle_is_found_or_named(story: Story, tmp_path: Path) -> None:
    mask = story.folder / "masks" / "t0.tif"
    other = tmp_path / "bundles" / "renamed.bundle.zip"
    story.bundle.rename(other)
    assert problems(story.ask(mask)) == {}, "it is found among the project's bundles by its digest"
    away = tmp_path / "away.zip"
    other.rename(away)
    assert "name it with --bundle" in problems(story.ask(mask))["bundle"]
    assert problems(story.ask(mask, "--bundle", str(away))) == {}
    wrong = tiny_bundle(tmp_path / "second", level=0.5)
    assert run(["lineage", str(mask), "--bundle", str(wrong)]) == ExitCode.REFUSED
    assert "is not the bundle of this run" in story.capsys.readouterr().err


def test_a_changed_mask_is_not_trusted(story: Story) -> None:
    mask = story.folder / "masks" / "t0.tif"
    with tifffile.TiffFile(mask) as tif:
        labels, text = tif.asarray(), tif.pages.first.description
    labels[0, 0] = 99
    tifffile.imwrite(mask, labels, description=text, metadata=None)
    links = story.ask(mask, code=ExitCode.FINDINGS)
    assert links["mask"]["problem"] == "the labels were changed since the mask was written"


def test_facts_that_do_not_give_the_run_digest_are_not_trusted(story: Story) -> None:
    run_file = story.folder / "run.json"
    facts = json.loads(run_file.read_bytes())
    run_file.write_bytes(canonical_bytes({**facts, "variant": "openvino/int8"}))
    links = story.ask(f"{story.folder}/objects.csv#1", code=ExitCode.FINDINGS)
    assert links["row"]["problem"].startswith("the run digest does not match")


def test_a_decision_of_a_stranger_is_not_trusted(story: Story, tmp_path: Path) -> None:
    own = story.key
    story.key = SigningKey.load_or_create(tmp_path / "stranger.pem")
    for file in (tmp_path / "records" / "decision").iterdir():
        file.unlink()
    story.decide()
    links = story.ask(story.bundle, code=ExitCode.FINDINGS)
    assert "signature is not good" in links["decision"]["problem"]
    assert problems(story.ask(story.bundle, "--public-key", str(tmp_path / "stranger.pem.pub"))) == {}
    (tmp_path / "keys" / "decision.pem.pub").unlink()
    links = story.ask(story.bundle)
    assert "no public key is available" in links["decision"]["problem"]
    assert own.public_pem != story.key.public_pem


def test_a_superseded_mask_names_what_came_after(story: Story) -> None:
    mask = story.folder / "masks" / "t0.tif"
    assert "superseded_by" not in story.ask(mask)["mask"]["facts"]
    after = story.segment("--pixel-size-um", "0.5")
    assert story.ask(mask)["mask"]["facts"]["superseded_by"] == after["run_digest"]
    assert story.ask(f"{story.folder}/frames.csv#1")["row"]["facts"]["superseded_by"] == after["run_digest"]
    newer = Path(after["folder"]) / "masks" / "t0.tif"
    assert "superseded_by" not in story.ask(newer)["mask"]["facts"]


def test_a_mask_of_a_file_that_changed_says_so(story: Story) -> None:
    mask = story.folder / "masks" / "t0.tif"
    assert "superseded" not in story.ask(mask)["mask"]["facts"]
    write_tiff(story.root / "frames" / "t0.tif", discs(5)[0])
    story.segment()
    assert "segmented again" in story.ask(mask)["mask"]["facts"]["superseded"]
    assert "superseded" not in story.ask(story.folder / "masks" / "t0-2.tif")["mask"]["facts"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("absent.tif", "absent.tif: no such file"),
        ("objects.csv", "the row is missing"),
        ("objects.csv#0", "there is no row 0"),
        ("objects.csv#7", "there is no row 7"),
        ("objects.parquet#7", "there is no row 7"),
        ("objects.csv#x", "'x' is not the number of a row"),
        ("other.csv#1", "its rows have no run digest"),
        ("absent.csv#1", "No such file"),
        ("frame.tif", "says nothing of where it comes from"),
        ("run.json", "is not a bundle"),
    ],
)
def test_mistakes(story: Story, what: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(story.folder)
    Path("other.csv").write_text("a,b\n1,2\n")
    tifffile.imwrite("frame.tif", np.zeros((4, 4), np.uint8))
    assert run(["lineage", what]) == ExitCode.REFUSED
    assert message in story.capsys.readouterr().err
