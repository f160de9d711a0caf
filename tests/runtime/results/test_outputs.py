"""Folders of results: names, tables, going on, superseding, failing politely."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cellfleet.bundle import ModelFolder
from cellfleet.data import read_mask
from cellfleet.errors import ReadError, SegmentError, StorageError
from cellfleet.runtime import OutputOptions, Segmenter, load_segmenter, make_engine, read_mask_metadata, segment_files
from cellfleet.runtime.results.outputs import Report
from cellfleet.runtime.results.run_folder import read_runs
from support_bundle import discs
from support_images import write_tiff
from support_onnx import tiny_folder, tiny_onnx, tiny_spec
from support_video import moving_disc, write_video

Run = Callable[..., Report]


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return tiny_folder(tmp_path / "model")


@pytest.fixture
def segment(folder: ModelFolder, tmp_path: Path) -> Run:
    def run(*paths: Path, out: Path = tmp_path / "out", **options: Any) -> Report:
        chosen = OutputOptions(**options)
        model = load_segmenter(folder, decisive=chosen.decisive, cache=tmp_path / "cache")
        return segment_files(model, paths, out, chosen, model_path=folder.path)

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i in range(3):
        write_tiff(tmp_path / "images" / f"t{i}.tif", discs(i)[0])
    return tmp_path / "images"


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_every_frame_gets_its_files_and_rows(segment: Run, images: Path, tmp_path: Path) -> None:
    report = segment(images)
    assert (report.segmented, report.skipped, report.frames, report.failed) == (3, 0, 3, ())
    assert report.folder == tmp_path / "out" / report.run_digest[:12]
    names = {p.relative_to(report.folder).as_posix() for p in report.folder.rglob("*") if p.is_file()}
    expected = {f"{kind}/t{i}{suffix}" for i in range(3) for kind, suffix in (
        ("masks", ".tif"), ("contours", ".geojson"), ("overlays", ".png"), ("rows", ".json"))}  # fmt: skip
    assert names == expected | {
        "run.json", "frames.csv", "frames.parquet", "objects.csv", "objects.parquet"
    }  # fmt: skip
    objects, frames = table(report.folder / "objects.csv"), table(report.folder / "frames.csv")
    assert len(objects) == report.objects == sum(int(f["count"]) for f in frames)
    for frame in frames:
        labels = read_mask(report.folder / frame["mask"])
        mine = [o for o in objects if o["frame"] == frame["frame"]]
        assert [int(o["area_px"]) for o in mine] == np.bincount(labels.ravel())[1:].tolist()
        assert {o["run_digest"] for o in mine} == {frame["run_digest"]} == {report.run_digest}
        said = read_mask_metadata(report.folder / frame["mask"])
        assert said["source_sha256"] == frame["source_sha256"]
        assert said["count"] == len(mine) == int(labels.max())
        assert said["frame_index"] is None
        contours = json.loads((report.folder / frame["contours"]).read_bytes())
        assert [f["id"] for f in contours["features"]] == [int(o["id"]) for o in mine]
        assert contours["cellfleet"]["run_digest"] == report.run_digest
    assert frames[0]["flags"] == "pixel-size-unknown"
    assert objects[0]["area_um2"] == ""
    run = json.loads((report.folder / "run.json").read_bytes())
    assert run["run_digest"] == report.run_digest
    assert run["reason"] == "onnxruntime/fp32 is the only variant that runs here"
    assert run["finished"] >= run["started"]


def test_csv_and_parquet_hold_the_same(segment: Run, images: Path) -> None:
    (images / "index.csv").write_text("file,group,stratum,well,id,pixel_size_um\nt1.tif,g,A,Ä1,x7,0.5\n", "utf-8")
    report = segment(images)
    for name in ("objects", "frames"):
        plain = table(report.folder / f"{name}.csv")
        typed = pq.read_table(report.folder / f"{name}.parquet").to_pylist()
        assert len(plain) == len(typed) > 0
        for a, b in zip(plain, typed, strict=True):
            assert a == {k: "" if v is None else str(v) for k, v in b.items()}
    rows = {row["frame"]: row for row in table(report.folder / "frames.csv")}
    assert (rows["t1"]["well"], rows["t1"]["group"], rows["t1"]["stratum"]) == ("Ä1", "g", "A")
    assert rows["t0"]["well"] == ""
    assert rows["t1"]["pixel_size_um"] == "0.5"
    objects = [row for row in table(report.folder / "objects.csv") if row["frame"] == "t1"]
    assert {row["meta_id"] for row in objects} == {"x7"}
    assert [row["id"] for row in objects] == [str(i) for i in range(1, len(objects) + 1)]
    assert float(objects[0]["area_um2"]) == int(objects[0]["area_px"]) * 0.25


def test_a_second_run_passes_over_what_is_done(segment: Run, images: Path) -> None:
    first = segment(images)
    before = files_of(first.folder)
    second = segment(images)
    assert (second.segmented, second.skipped, second.objects) == (0, 3, first.objects)
    assert second.ms_per_frame is None
    after = files_of(second.folder)
    assert {n: v for n, v in after.items() if "/" in n} == {n: v for n, v in before.items() if "/" in n}
    assert after["objects.csv"][1] == before["objects.csv"][1]
    write_tiff(images / "t10.tif", discs(9)[0])
    (first.folder / "masks" / "t1.tif").unlink()
    third = segment(images)
    assert (third.segmented, third.skipped) == (2, 2)
    assert [row["frame"] for row in table(third.folder / "frames.csv")] == ["t0", "t1", "t2", "t10"]
    assert (first.folder / "masks" / "t1.tif").read_bytes() == before["masks/t1.tif"][1]


def test_an_interrupted_run_goes_on(
    segment: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = segment(images, out=tmp_path / "whole")
    real, calls = Segmenter.segment, []

    def interrupted(self: Segmenter, frame: Any) -> Any:
        calls.append(frame)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, frame)

    monkeypatch.setattr(Segmenter, "segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segment(images)
    done = [p.name for p in (tmp_path / "out").rglob("rows/*")]
    assert sorted(done) == ["t0.json", "t1.json"]
    assert [p for p in (tmp_path / "out").rglob("*") if ".part" in p.name] == []
    again = segment(images)
    assert (again.segmented, again.skipped) == (1, 2)
    for name in ("objects.csv", "masks/t1.tif", "masks/t2.tif"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_outputs_that_are_wanted_later_are_added(segment: Run, images: Path) -> None:
    first = segment(images, contours=False, overlays=False)
    assert {p.name for p in first.folder.iterdir() if p.is_dir()} == {"masks", "rows"}
    masks = {n: data for n, (_, data) in files_of(first.folder / "masks").items()}
    second = segment(images)
    assert second.segmented == 3
    assert {n: data for n, (_, data) in files_of(second.folder / "masks").items()} == masks
    assert len(list((second.folder / "overlays").iterdir())) == 3
    assert segment(images, overlays=False).skipped == 3


def test_another_run_supersedes_and_changes_nothing(segment: Run, images: Path, tmp_path: Path) -> None:
    old = segment(images)
    before = files_of(old.folder)
    new = segment(images, pixel_size_um=0.5)
    assert new.folder != old.folder
    assert new.supersedes == old.run_digest
    assert files_of(old.folder) == before
    assert [line["supersedes"] for line in read_runs(tmp_path / "out")] == [None, old.run_digest]
    assert segment(images, pixel_size_um=0.5).supersedes is None, "it is the current one already"
    assert segment(images).supersedes == new.run_digest, "back to the old one"
    assert [line["run_digest"] for line in read_runs(tmp_path / "out")] == [
        old.run_digest, new.run_digest, old.run_digest
    ]  # fmt: skip


def test_a_file_that_changed_is_another_frame(segment: Run, images: Path) -> None:
    first = segment(images)
    old = (first.folder / "masks" / "t1.tif").read_bytes()
    write_tiff(images / "t1.tif", discs(8)[0])
    second = segment(images)
    assert (second.segmented, second.skipped, second.frames) == (1, 2, 3)
    assert (first.folder / "masks" / "t1.tif").read_bytes() == old
    assert [row["frame"] for row in table(second.folder / "frames.csv")] == ["t0", "t1-2", "t2"]
    assert json.loads((second.folder / "run.json").read_bytes())["superseded_frames"] == ["t1"]
    assert segment(images).skipped == 3


def test_a_pixel_size_that_index_csv_corrects_is_another_frame(segment: Run, images: Path) -> None:
    (images / "index.csv").write_text("file,pixel_size_um\nt1.tif,0.5\n")
    segment(images)
    (images / "index.csv").write_text("file,pixel_size_um\nt1.tif,0.25\n")
    report = segment(images)
    assert report.segmented == 1
    assert {r["frame"]: r["pixel_size_um"] for r in table(report.folder / "frames.csv")} == {
        "t0": "", "t1-2": "0.25", "t2": ""
    }  # fmt: skip


def test_files_of_the_same_name_do_not_collide(segment: Run, tmp_path: Path) -> None:
    files = [write_tiff(tmp_path / side / "x y 細胞.tif", discs(i)[0]) for i, side in enumerate("abc")]
    clash = write_tiff(tmp_path / "d" / "X Y 細胞-2.tif", discs(5)[0])
    segment(files[0], files[1])
    report = segment(files[2], clash, files[1], files[0], files[0])
    assert (report.segmented, report.skipped, report.frames) == (2, 2, 4)
    rows = {row["frame"]: row["source"] for row in table(report.folder / "frames.csv")}
    assert rows == {
        "x y 細胞": str(files[0]),
        "x y 細胞-2": str(files[1]),
        "x y 細胞-3": str(files[2]),
        "X Y 細胞-2-2": str(clash),
    }
    for name, source in rows.items():
        labels = read_mask(report.folder / "masks" / f"{name}.tif")
        alone = segment(Path(source), out=tmp_path / "alone" / Path(source).parent.name)
        assert np.array_equal(labels, read_mask(next((alone.folder / "masks").iterdir())))


def test_sub_folders_are_kept(segment: Run, tmp_path: Path) -> None:
    write_tiff(tmp_path / "plate" / "A1" / "t0.ome.tif", discs(0)[0])
    write_tiff(tmp_path / "plate" / "B2" / "t0.ome.tif", discs(1)[0])
    report = segment(tmp_path / "plate")
    assert [row["frame"] for row in table(report.folder / "frames.csv")] == ["A1/t0", "B2/t0"]
    assert (report.folder / "masks" / "A1" / "t0.tif").is_file()


def test_results_below_the_inputs_are_no_inputs(segment: Run, images: Path) -> None:
    segment(images, out=images / "out")
    assert segment(images, out=images / "out").frames == 3


def test_videos_give_a_row_per_frame_with_its_time(segment: Run, tmp_path: Path) -> None:
    file = write_video(tmp_path / "films" / "Film 1.avi", [moving_disc(i) for i in range(4)], per_second=2.0)
    report = segment(tmp_path / "films")
    rows = table(report.folder / "frames.csv")
    assert [(r["frame_index"], r["time_s"]) for r in rows] == [("0", "0.0"), ("1", "0.5"), ("2", "1.0"), ("3", "1.5")]
    assert [row["frame"] for row in rows] == [f"Film 1@00000{i}" for i in range(4)]
    assert {row["source"] for row in rows} == {str(file)}
    assert [row["count"] for row in rows] == ["1"] * 4
    x = [float(row["centroid_x_px"]) for row in table(report.folder / "objects.csv")]
    assert np.allclose(np.diff(x), 4, atol=0.5)
    said = read_mask_metadata(report.folder / "masks" / "Film 1@000003.tif")
    assert (said["frame_index"], said["time_s"], said["source"]) == (3, 1.5, "Film 1.avi")
    shutil.rmtree(report.folder / "rows")
    assert segment(tmp_path / "films").segmented == 4
    assert segment(tmp_path / "films").skipped == 4


def test_what_cannot_be_read_is_named_and_the_others_go_on(segment: Run, images: Path) -> None:
    whole = (images / "t1.tif").read_bytes()
    (images / "t1.tif").write_bytes(whole[: len(whole) // 2])
    (images / "photo.JPG").write_bytes(b"\xff\xd8\xff\xe0 and so on")
    (images / "notes.txt").write_text("no image")
    write_tiff(images / "float.tif", np.zeros((8, 8), np.float32))
    write_tiff(images / "stack.tif", np.zeros((5, 8, 8), np.uint8))
    noise = [np.random.default_rng(i).integers(0, 255, (120, 160), np.uint8) for i in range(6)]
    film = write_video(images / "film.avi", noise)
    film.write_bytes(film.read_bytes()[:-5000])
    report = segment(images)
    failed = {Path(f.source).name: f for f in report.failed}
    assert set(failed) == {"t1.tif", "float.tif", "stack.tif", "film.avi", "photo.JPG"}
    assert all(f.hint for f in report.failed)
    assert "truncated or damaged" in failed["t1.tif"].message
    assert "JPEG is refused" in failed["photo.JPG"].message
    assert "5 of 6 frames" in failed["film.avi"].message
    assert (report.frames, report.segmented) == (7, 7)
    assert len(json.loads((report.folder / "run.json").read_bytes())["failed"]) == 5
    (images / "t1.tif").write_bytes(whole)
    again = segment(images)
    assert (again.segmented, again.skipped, len(again.failed)) == (1, 7, 4)


def test_a_frame_that_the_model_refuses_is_named(tmp_path: Path, images: Path) -> None:
    model = tiny_folder(tmp_path / "two", tiny_spec(channels=("phase", "green")))
    write_tiff(images / "two.tif", np.stack([discs(0)[0]] * 2))
    report = segment_files(load_segmenter(model, cache=tmp_path / "cache"), [images], tmp_path / "out")
    assert [Path(f.source).name for f in report.failed] == ["t0.tif", "t1.tif", "t2.tif"]
    assert "phase, green" in report.failed[0].message
    assert report.frames == 1


def test_nothing_to_do_is_an_error(segment: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="no image and no video in"):
        segment(tmp_path / "empty")
    with pytest.raises(ReadError, match="no such file or folder"):
        segment(tmp_path / "absent")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_refuses_loses_nothing(segment: Run, images: Path, tmp_path: Path) -> None:
    report = segment(images / "t0.tif")
    before = files_of(report.folder / "masks")
    (report.folder / "overlays").rename(report.folder / "away")
    (report.folder / "overlays").write_text("in the way")
    with pytest.raises(StorageError, match="overlays") as e:
        segment(images)
    assert e.value.hint
    assert [p.name for p in (report.folder / "rows").iterdir()] == ["t0.json"]
    assert len(table(report.folder / "frames.csv")) == 1
    (report.folder / "overlays").unlink()
    (report.folder / "away").rename(report.folder / "overlays")
    assert segment(images).frames == 3
    assert files_of(report.folder / "masks")["t0.tif"][1] == before["t0.tif"][1]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        segment(images, out=tmp_path / "file")


def test_a_damaged_row_is_named(segment: Run, images: Path) -> None:
    report = segment(images)
    (report.folder / "rows" / "t1.json").write_text("{")
    with pytest.raises(StorageError, match=r"t1\.json is damaged") as e:
        segment(images)
    assert "remove it" in e.value.hint
    (report.folder / "rows" / "t1.json").unlink()
    assert segment(images).segmented == 1


def test_results_need_a_run_digest(folder: ModelFolder, images: Path, tmp_path: Path) -> None:
    nameless = Segmenter(tiny_spec(), make_engine("onnxruntime", tiny_onnx(), 1))
    with pytest.raises(SegmentError, match="need a run digest"):
        segment_files(nameless, [images], tmp_path / "out")
    model = load_segmenter(folder, cache=tmp_path / "cache")
    with pytest.raises(SegmentError, match="another pixel size"):
        segment_files(model, [images], tmp_path / "out", replace(OutputOptions(), pixel_size_um=0.5))


def test_without_pyarrow_there_is_csv(segment: Run, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    report = segment(images)
    assert not report.parquet
    assert sorted(p.name for p in report.folder.glob("objects.*")) == ["objects.csv"]


def test_rows_carry_features_and_rows_of_before_have_none(segment: Run, images: Path) -> None:
    """The features of the monitor are in rows and table; rows that were written without them are still read."""
    rows = sorted((segment(images).folder / "rows").glob("*.json"))
    old = json.loads(rows[0].read_bytes())
    assert old["features"]["objects"] == 6
    del old["features"], old["timings_ms"]["watch"]
    rows[0].write_text(json.dumps(old), encoding="utf-8")
    again = segment(images)
    assert (again.segmented, again.skipped) == (0, 3)
    found = table(again.folder / "frames.csv")
    assert [row["feature_objects"] for row in found] == ["", "6.0", "6.0"]
    assert float(found[1]["feature_noise"]) > 0
    assert found[1]["watch_ms"] != found[0]["watch_ms"] == ""
