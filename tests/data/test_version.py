"""Data set versions: the digest is the version, changes are noticed, splits are drawn from names."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellfleet.canonical import digest_of
from cellfleet.config.model import DataSection
from cellfleet.data import DataSetVersion, freeze, validate
from cellfleet.data.findings import Finding
from cellfleet.data.freeze import diff
from cellfleet.errors import DataError, ReadError, StorageError
from support_images import plain_rows, scene, write_folder, write_png, write_tiff

SECTION = DataSection(source="data")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data", plain_rows())
    return tmp_path


def frozen(project: Path) -> DataSetVersion:
    version = freeze(SECTION, project)
    version.save(project / "dataset.json")
    return version


def test_nothing_is_copied_and_everything_is_read_back(project: Path) -> None:
    before = sorted(p for p in project.rglob("*"))
    version = frozen(project)
    assert sorted(project.rglob("*")) == sorted([*before, project / "dataset.json"])
    loaded = DataSetVersion.load(project / "dataset.json")
    assert (loaded.digest, loaded.entries, loaded.root) == (version.digest, version.entries, version.root)
    for i, entry in enumerate(loaded.entries):
        pixels, labels = scene(i)
        frame = loaded.load_frame(entry)
        np.testing.assert_array_equal(frame.pixels[0], pixels)
        np.testing.assert_array_equal(loaded.load_mask(entry), labels)
        assert (frame.channels, frame.pixel_size_um, entry.objects) == (("phase",), 0.5, 4)
        assert entry.split in ("train", "validation", "test")
    assert sum(len(loaded.split(s)) for s in ("train", "validation", "test")) == 9


def test_the_digest_is_that_of_the_plain_manifest_and_of_no_folder(project: Path, tmp_path: Path) -> None:
    version = frozen(project)
    assert digest_of(version.manifest_dict()) == version.digest
    assert digest_of(json.loads(json.dumps(version.manifest_dict()))) == version.digest
    assert str(tmp_path) not in json.dumps(version.manifest_dict())
    other = tmp_path / "else where"
    shutil.copytree(project / "data", other / "data")
    for file in (other / "data").rglob("*"):
        os.utime(file, (1, 1))
    assert freeze(SECTION, other).digest == version.digest
    (other / "data" / "index.csv").write_text((project / "data" / "index.csv").read_text().replace(",A,", ",B,"))
    assert freeze(SECTION, other).digest != version.digest


def test_a_changed_file_is_noticed(project: Path) -> None:
    version = frozen(project)
    entry = version.entries[2]
    image, mask = project / "data" / entry.image.uri, project / "data" / entry.mask.uri
    image, mask = (p if p.exists() else project / u for p, u in ((image, entry.image.uri), (mask, entry.mask.uri)))
    write_tiff(image, scene(77)[0])
    write_png(mask, scene(77, cells=3)[1])
    loaded = DataSetVersion.load(project / "dataset.json")
    with pytest.raises(DataError, match="changed since it was frozen") as e:
        loaded.load_frame(entry)
    assert image.name in e.value.message
    with pytest.raises(DataError, match="changed since it was frozen"):
        loaded.load_mask(entry)
    mask.unlink()
    with pytest.raises(ReadError, match="no such file"):
        loaded.load_mask(entry)
    again = validate(DataSection(source="dataset.json"), project)
    assert {(f.level, f.code) for f in again} == {("error", "changed"), ("error", "unreadable-mask")}


def test_a_version_is_a_source_and_gives_itself(project: Path) -> None:
    version = frozen(project)
    assert freeze(DataSection(source="dataset.json"), project).digest == version.digest


def test_files_may_move_with_or_without_the_manifest(project: Path, tmp_path: Path) -> None:
    frozen(project)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(project / "data", moved / "data")
    shutil.copy(project / "dataset.json", moved)
    entry = DataSetVersion.load(moved / "dataset.json").entries[0]
    assert DataSetVersion.load(moved / "dataset.json").load_frame(entry).height == 48
    there = DataSetVersion.load(project / "dataset.json", root=moved / "data")
    assert there.load_frame(entry).height == 48
    with pytest.raises(ReadError, match="no such file"):
        DataSetVersion.load(project / "dataset.json").load_frame(entry)


def _set(path: list[str | int], value: Any) -> Callable[[Any], None]:
    def change(stored: Any) -> None:
        for key in path[:-1]:
            stored = stored[key]
        stored[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_set(["manifest", "entries", 0, "split"], "test2"), "split"),
        (_set(["manifest", "entries", 0, "group"], "other"), "does not fit its digest"),
        (_set(["digest"], "0" * 64), "does not fit its digest"),
        (_set(["manifest", "entries", 0, "image", "sha256"], "x"), "sha256"),
        (_set(["manifest", "entries", 0, "surprise"], 1), "surprise"),
        (_set(["manifest", "entries", 0, "height"], "48"), "height"),
        (_set(["manifest", "entries"], []), "entries"),
        (_set(["manifest", "format_version"], 2), "format version 2"),
        (_set(["manifest"], 3), "not a data set version"),
        (_set(["extra"], 3), "extra"),
    ],
)
def test_a_tampered_or_foreign_manifest_is_refused(project: Path, change: Callable[[Any], None], word: str) -> None:
    frozen(project)
    file = project / "dataset.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    change(value)
    file.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError, match=word) as e:
        DataSetVersion.load(file)
    assert "dataset.json" in e.value.message


def test_a_manifest_that_points_outside_is_refused(project: Path) -> None:
    version = frozen(project)
    first = version.entries[0]
    bad = first.model_copy(update={"image": first.image.model_copy(update={"uri": "../../etc/passwd"})})
    with pytest.raises(DataError, match="not below its root"):
        DataSetVersion.make([bad], project).load_frame(bad)
    far = first.model_copy(update={"image": first.image.model_copy(update={"uri": "s3://bucket/a.tif"})})
    with pytest.raises(ReadError, match="no reader for s3"):
        DataSetVersion.make([far], project).load_frame(far)


def test_no_such_manifest_cut_manifest_and_wrong_split(project: Path) -> None:
    with pytest.raises(DataError, match="no such data set version"):
        DataSetVersion.load(project / "none.json")
    version = frozen(project)
    file = project / "dataset.json"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="not valid JSON"):
        DataSetVersion.load(file)
    with pytest.raises(DataError, match="no split 'tset'"):
        version.split("tset")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least one image"):
        DataSetVersion.make([], project)
    with pytest.raises(DataError, match="two entries"):
        DataSetVersion.make([version.entries[0]] * 2, project)


def test_a_failed_save_leaves_the_old_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = frozen(project)
    before = (project / "dataset.json").read_bytes()

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        DataSetVersion.make(version.entries[:3], version.root).save(project / "dataset.json")
    assert (project / "dataset.json").read_bytes() == before
    assert [p.name for p in project.iterdir() if p.name.startswith(".")] == []


def test_freeze_refuses_errors_and_reports_warnings(project: Path) -> None:
    write_png(project / "data" / "masks" / "f1.png", scene(1)[1] * 0)
    warnings: list[Finding] = []
    freeze(SECTION, project, on_warning=warnings.append)
    assert [w.code for w in warnings] == ["empty-mask"]
    (project / "data" / "masks" / "f2.png").unlink()
    with pytest.raises(DataError, match="1 error") as e:
        freeze(SECTION, project)
    assert "images/f2" in e.value.message


def test_images_with_the_same_pixels_stay_in_one_split(project: Path) -> None:
    for i in (3, 5, 7):
        write_tiff(project / "data" / "images" / f"f{i}.tif", scene(1)[0], compression="zlib")
    version = freeze(SECTION, project)
    assert len({e.split for e in version.entries if e.id in ("f1", "f3", "f5", "f7")}) == 1


def test_diff_tells_what_changed_and_equal_digests_mean_no_difference(project: Path) -> None:
    old = frozen(project)
    assert diff(old, freeze(SECTION, project)).same
    write_tiff(project / "data" / "images" / "f0.tif", scene(0)[0], compression="zlib")
    write_tiff(project / "data" / "images" / "f1.tif", scene(50)[0])
    write_png(project / "data" / "masks" / "f2.png", scene(2, cells=3)[1])
    rows = [{**r, "stratum": "B"} if r["file"] == "f4.tif" else r for r in plain_rows()]
    rows = [r for r in rows if r["file"] != "f8.tif"]
    (project / "data" / "index.csv").write_text(
        "file,group,stratum,pixel_size_um\n" + "".join(",".join(r.values()) + "\n" for r in rows)
    )
    for folder, suffix in (("images", "tif"), ("masks", "png")):
        (project / "data" / folder / f"f8.{suffix}").unlink()
    found = diff(old, freeze(SECTION, project))
    assert (found.added, found.removed) == ((), ("f8",))
    assert (found.changed_image, found.changed_mask, found.changed_files) == (("f1",), ("f2",), ("f0",))
    assert found.changed_metadata == ("f4",)
    assert not found.same


def test_real_cells_are_split_as_the_demo_needs_it(shared_data: Path) -> None:
    version = freeze(DataSection(source=str(shared_data / "usiigaci_phase")), shared_data)
    counts = Counter((e.split, e.stratum) for e in version.entries)
    assert len(version.entries) == 45
    assert len(version.split("test")) >= 9
    assert all(counts[split, stratum] >= 2 for split in ("train", "validation", "test") for stratum in ("A", "BC"))
    groups = {e.group: {f.split for f in version.entries if f.group == e.group} for e in version.entries}
    assert all(len(splits) == 1 for splits in groups.values())
    assert sum(e.objects for e in version.entries) == 2898
    first = version.split("test")[0]
    assert version.load_frame(first).pixel_size_um == 0.8708
    assert version.load_mask(first).max() == first.objects
