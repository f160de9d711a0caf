"""The folder of an evaluation and its report: complete, self-contained, never half-written."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cellfleet.bundle import Bundle, ModelFolder, open_bundle
from cellfleet.bundle.spec import Variant
from cellfleet.config.model import DataSection, EvaluationSection, GateSection
from cellfleet.data import DataSetVersion, freeze
from cellfleet.errors import EngineError, EvaluateError, LineageError
from cellfleet.evaluate.assess import assess
from cellfleet.evaluate.history import dropped_variants
from cellfleet.evaluate.output import Gallery, replaced_folder
from cellfleet.evaluate.report import key_numbers, report_html
from cellfleet.evaluate.write import Written, evaluate_model, folder_name
from cellfleet.lineage import RecordStore
from cellfleet.metrics import summarise
from cellfleet.ports import FixedClock
from simulators.disk import every_cut
from support_bundle import tiny_bundle
from support_onnx import FP32, tiny_folder, tiny_spec


class Page(HTMLParser):
    """What a page refers to, and its headings, images and tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        self.references += [str(values[k]) for k in ("src", "href", "srcset", "data", "action") if k in values]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [values for name, values in self.tags if name == tag]


@pytest.fixture
def page(written: Written) -> Page:
    return Page((written.folder / "report.html").read_text(encoding="utf-8"))


def measure(root: Path, model: Any, data: DataSetVersion, **options: Any) -> Written:
    options = {"policy": GateSection(), "records": RecordStore(root / "records"), "key": root / "key.pem", **options}
    return evaluate_model(model, data, root / "evaluation", **options)


def test_the_folder_is_complete(written: Written, data: DataSetVersion) -> None:
    names = sorted(p.relative_to(written.folder).as_posix() for p in written.folder.rglob("*") if p.is_file())
    overlays = [f"overlays/{e.id}.png" for e in data.split("test")]
    assert names == ["decision.json", "metrics.json", *overlays, "report.html"]
    assert [p.name for p in written.folder.parent.iterdir()] == ["one"]  # nothing is left beside it


def test_metrics_json_has_all_numbers(written: Written, data: DataSetVersion, bundle: Bundle) -> None:
    metrics = json.loads((written.folder / "metrics.json").read_text(encoding="utf-8"))
    summary = written.assessment.evaluation.summary
    assert metrics["model"] == {"name": "tiny", "version": "1.0.0", "digest": bundle.sha256, "bundle": bundle.sha256}
    assert (metrics["data_set"], metrics["split"]) == (data.digest, "test")
    assert metrics["numbers"] == {**vars(summary.overall), "ap": dict(summary.overall.ap)}
    assert {s: n["ap50"] for s, n in metrics["strata"].items()} == {s: n.ap50 for s, n in summary.strata.items()}
    scores = [f["numbers"]["ap50"] for f in metrics["frames"]]
    assert scores == sorted(scores)
    assert {f["id"] for f in metrics["frames"]} == {e.id for e in data.split("test")}
    assert [v["name"] for v in metrics["variants"]] == ["onnxruntime/fp32"]
    assert metrics["variants"][0]["bytes"] == len(bundle.read(FP32))
    assert metrics["variants"][0]["ms_per_frame"] > 0
    assert (metrics["verdict"], metrics["reasons"], metrics["champion"]) == ("passed", [], None)
    assert metrics["timings_ms"].keys() >= {"network", "objects", "total"}


def test_the_report_is_one_file(page: Page, written: Written) -> None:
    assert page.references
    assert all(r.startswith(("data:", "#")) for r in page.references)
    text = (written.folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_the_report_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") for head in page.all("th"))
    ids = [values["id"] for _, values in page.tags if "id" in values]
    assert len(ids) == len(set(ids))
    named = [n for _, values in page.tags for n in str(values.get("aria-labelledby", "")).split() if n != "None"]
    assert set(named) <= set(ids)


def test_the_report_shows_the_frames_worst_first(page: Page, written: Written) -> None:
    worst = [f.id for f in written.assessment.evaluation.worst_first]
    alts = [str(image["alt"]) for image in page.all("img")]
    assert [a.split()[1] for a in alts] == worst
    assert "Passed: every threshold" in " ".join(page.text)


def test_few_worst_frames_are_shown_when_so_set(tmp_path: Path, data: DataSetVersion, bundle: Bundle) -> None:
    done = measure(tmp_path, bundle, data, section=EvaluationSection(worst_frames=2))
    text = (done.folder / "report.html").read_text(encoding="utf-8")
    alts = [str(image["alt"]) for image in Page(text).all("img")]
    assert [a.split()[1] for a in alts] == [f.id for f in done.assessment.evaluation.worst_first[:2]]
    assert "The 2 worst of 4 frames" in text
    assert len(list((done.folder / "overlays").iterdir())) == 4


def test_the_report_is_the_same_for_the_same_input(written: Written) -> None:
    pictures = {f.id: b"jpeg" for f in written.assessment.evaluation.frames}
    first = report_html(written.assessment, pictures)
    assert first == report_html(written.assessment, dict(reversed(pictures.items())))


def test_a_failed_gate_names_each_number_in_the_report(tmp_path: Path, data: DataSetVersion) -> None:
    model = tiny_folder(tmp_path / "model", tiny_spec("blind", version="2.0.0"), level=99.0, data_set=data.digest)
    champion = tiny_folder(tmp_path / "champion", data_set=data.digest)
    done = measure(tmp_path, model, data, champion=champion, policy=GateSection(max_count_error=0.1))
    reasons = done.assessment.verdict.reasons
    assert len(reasons) == 6  # AP, Dice, count, two strata, champion
    text = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "6 numbers are not good enough" in text
    assert all(reason in text for reason in reasons)
    assert "there is no decision record" in text
    assert done.decision is None
    assert not (done.folder / "decision.json").exists()
    changes = [(k["label"], k["trend"]) for k in key_numbers(done.assessment)]
    assert changes[0] == ("AP@0.5", "worse")
    assert changes[3] == ("Count error", "worse")
    metrics = json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["champion"]["name"] == "tiny"
    assert metrics["model"]["bundle"] is None


def test_names_cannot_break_the_page(written: Written) -> None:
    bad = dataclasses.replace(written.assessment.evaluation.frames[0], id='<b onload="x">', stratum="A & B")
    summary = summarise([bad.score], [bad.stratum])
    evaluation = dataclasses.replace(written.assessment.evaluation, frames=(bad,), summary=summary)
    text = report_html(dataclasses.replace(written.assessment, evaluation=evaluation), {bad.id: b""}, approver="<i>")
    assert "<b onload" not in text
    assert "&lt;b onload=" in text
    assert "&lt;i&gt;" in text


def test_a_variant_that_cannot_run_here_is_a_line_not_an_error(tmp_path: Path, data: DataSetVersion) -> None:
    folder = tiny_folder(tmp_path / "model", data_set=data.digest)
    fp32 = folder.variants[0]
    folder = folder.with_variant(Variant(engine="tensorrt", precision="fp32", file=FP32, sha256=fp32.sha256))
    folder.save()
    model = ModelFolder.load(folder.path)
    steps: list[tuple[int, int]] = []
    done = measure(tmp_path, model, data, progress=lambda d, t, _: steps.append((d, t)))
    other = done.assessment.variants[1]
    assert (other.name, other.evaluation) == ("tensorrt/fp32", None)
    assert "not measured: " in (done.folder / "report.html").read_text(encoding="utf-8")
    with pytest.raises(EngineError):
        assess(model, data, GateSection(), variant="tensorrt/fp32")
    with pytest.raises(EngineError, match="no variant 'openvino/int8'"):
        assess(model, data, GateSection(), variant="openvino/int8")


def test_dropped_variants_are_shown_with_their_reason(tmp_path: Path, data: DataSetVersion, bundle: Bundle) -> None:
    store = RecordStore(tmp_path / "records")
    variants = [
        {"name": "onnxruntime/fp32", "kept": True, "reason": "the reference"},
        {"name": "onnxruntime/int8", "kept": False, "reason": "loses 0.2 AP@0.5"},
    ]
    files = {v.name: v.sha256 for v in bundle.variants}
    record = {"training": bundle.lineage.training_run, "files": files, "variants": variants, "time": "2026-01-02"}
    store.put("optimization", record)
    store.put("optimization", {**record, "variants": [], "time": "2026-01-01"})
    store.put("optimization", {**record, "files": {}, "variants": [], "time": "2026-01-03"})
    assert dropped_variants(bundle, store) == {"onnxruntime/int8": "loses 0.2 AP@0.5"}
    done = measure(tmp_path, bundle, data)
    assert "not in the model: loses 0.2 AP@0.5" in (done.folder / "report.html").read_text(encoding="utf-8")


def test_frames_that_were_trained_with_are_found_in_the_records(tmp_path: Path, data: DataSetVersion) -> None:
    store = RecordStore(tmp_path / "records")
    moved = {e.id for e in data.split("test")[:2]}
    entries = [e.model_copy(update={"split": "train"}) if e.id in moved else e for e in data.entries]
    other = DataSetVersion.make(entries, data.root)
    store.put("data-set", other.manifest_dict())
    model = tiny_folder(tmp_path / "model", data_set=other.digest)
    found = assess(model, data, GateSection(), records=store)
    assert found.used_in_training == tuple(sorted(moved))
    assert not found.verdict.passed
    unknown = assess(model, data, GateSection(), records=RecordStore(tmp_path / "none"))
    assert unknown.used_in_training is None
    assert unknown.verdict.passed
    assert not assess(model, data, GateSection(), split="validation", records=store).verdict.passed


def test_a_second_run_replaces_the_first(tmp_path: Path, data: DataSetVersion, bundle: Bundle) -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    first = measure(tmp_path, bundle, data, clock=clock)
    (first.folder / "stale").write_text("x")
    second = measure(tmp_path, bundle, data, clock=clock)
    assert not (second.folder / "stale").exists()
    assert first.decision == second.decision
    later = measure(tmp_path, bundle, data, clock=FixedClock(datetime(2026, 1, 2, tzinfo=UTC)))
    assert later.decision != first.decision


def test_nothing_is_half_written(tmp_path: Path, data: DataSetVersion, bundle: Bundle) -> None:
    def interrupted(done: int, _total: int, _note: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, bundle, data, progress=interrupted)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key.pem", "key.pem.pub"]
    done = measure(tmp_path, bundle, data)
    before = (done.folder / "report.html").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, bundle, data, progress=interrupted)
    assert (done.folder / "report.html").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evaluation", "key.pem", "key.pem.pub", "records"]


def test_a_wrong_key_is_told_before_anything_is_measured(tmp_path: Path, data: DataSetVersion, bundle: Bundle) -> None:
    (tmp_path / "key.pem").write_text("no key")
    steps: list[int] = []
    with pytest.raises(LineageError, match="not a private key"):
        measure(tmp_path, bundle, data, progress=lambda done, _total, _note: steps.append(done))
    assert steps == []


def test_a_report_on_real_frames_stays_small(tmp_path: Path, shared_data: Path) -> None:
    source = write_part(shared_data / "usiigaci_phase", tmp_path / "part", 9)
    data = freeze(DataSection(source=str(source), test_fraction=0.9, validation_fraction=0.01), tmp_path)
    model = tiny_folder(tmp_path / "model", data_set=data.digest)
    done = measure(tmp_path, model, data)
    shown = Page((done.folder / "report.html").read_text(encoding="utf-8")).all("img")
    assert len(shown) == len(data.split("test")) >= 6
    assert (done.folder / "report.html").stat().st_size < 650_000 * len(shown)


def write_part(source: Path, target: Path, count: int) -> Path:
    """A data set folder with the first images of another one."""
    with (source / "index.csv").open(encoding="utf-8", newline="") as f:
        head, *rows = list(csv.reader(f))
    at = head.index("file")
    for kind in ("images", "masks"):
        (target / kind).mkdir(parents=True)
        for row in rows[:count]:
            (path,) = (source / kind).glob(f"{Path(row[at]).stem}.*")
            shutil.copy(path, target / kind)
    with (target / "index.csv").open("w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([head, *rows[:count]])
    return target


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(EvaluateError, match="is not an evaluation"), replaced_folder(tmp_path / name):
            pass
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "precious"


def test_folder_names(bundle: Bundle, data: DataSetVersion) -> None:
    assert folder_name(bundle, data, "test") == f"tiny-1.0.0-{data.digest[:8]}"
    assert folder_name(bundle, data, "validation") == f"tiny-1.0.0-{data.digest[:8]}-validation"


def test_overlays_have_names_of_their_own(tmp_path: Path, data: DataSetVersion, bundle: Bundle) -> None:
    gallery = Gallery(tmp_path, "phase", 2)
    scenes: list[Any] = []
    assess(bundle, data, GateSection(), on_frame=scenes.append)
    for scene, name in zip(scenes, ("a/b", "a_b", "../..", "細胞 1"), strict=True):
        gallery.add(dataclasses.replace(scene, result=dataclasses.replace(scene.result, id=name)))
    names = {p.name for p in (tmp_path / "overlays").iterdir()}
    assert len(names) == 4
    assert {"a_b.png", "細胞_1.png"} <= names
    assert len(gallery.worst()) == 2


def test_a_renamed_bundle_is_the_same_bundle(tmp_path: Path, data: DataSetVersion) -> None:
    one = tiny_bundle(tmp_path / "x", data_set=data.digest)
    two = one.rename(tmp_path / "renamed.zip")
    assert measure(tmp_path, open_bundle(two), data).assessment.verdict.passed


def test_an_evaluation_that_was_written_survives_a_power_cut(tmp_path: Path) -> None:
    target = tmp_path / "evaluation"

    def act() -> None:
        with replaced_folder(target) as folder:
            (folder / "overlays").mkdir()
            (folder / "overlays" / "a.png").write_bytes(b"picture")
            (folder / "metrics.json").write_bytes(b"{}")

    for survived in every_cut(tmp_path, act):
        if target.exists():
            left = (target / "overlays" / "a.png").read_bytes(), (target / "metrics.json").read_bytes()
            assert left == (b"picture", b"{}"), survived
        else:
            assert not survived.done, survived
