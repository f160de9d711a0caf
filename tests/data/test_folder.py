"""Folders of images/ and masks/ with index.csv: what becomes of every cell, and every fault a finding."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellfleet.config.model import DataSection
from cellfleet.data import iter_frames
from cellfleet.data.index_csv import read_index
from cellfleet.data.source_opening import open_source
from cellfleet.errors import DataError, ReadError
from support_images import plain_rows, scene, write_folder, write_png, write_tiff


def _index(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "index.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("head", ["\ufefffile,group,Plate No", "file;group;Plate No", "file\tgroup\tPlate No"])
def test_index_is_read_with_every_usual_delimiter(tmp_path: Path, head: str) -> None:
    delimiter = "," if "," in head else ";" if ";" in head else "\t"
    row = delimiter.join(["images/a b.tif", "g", "7"])
    index = read_index(_index(tmp_path, f"{head}\r\n{row}\r\n\r\n"))
    assert index.findings == ()
    found = index.get("a b")
    assert (found.group, dict(found.metadata)) == ("g", {"Plate No": "7"})


def test_known_columns(tmp_path: Path) -> None:
    text = "file,stratum,split,pixel_size_um,channels,licence,well\na,S,val,0.65,phase|green,CC0-1.0,A1\n"
    row = read_index(_index(tmp_path, text)).get("a")
    assert (row.stratum, row.split, row.pixel_size_um) == ("S", "validation", 0.65)
    assert row.channels == ("phase", "green")
    assert (dict(row.provenance), dict(row.metadata)) == ({"licence": "CC0-1.0"}, {"well": "A1"})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("file,split\na,tain\n", "unknown split"),
        ("file,pixel_size_um\na,-1\n", "not a positive number"),
        ("file,pixel_size_um\na,wide\n", "not a positive number"),
        ("file,group\na,g\na.tif,h\n", "a second row"),
        ("file,group\n,g\n", "no file name"),
        ("file,group\na,g,h\n", "more cells than the header"),
    ],
)
def test_faulty_rows_are_findings(tmp_path: Path, text: str, word: str) -> None:
    findings = read_index(_index(tmp_path, text)).findings
    assert len(findings) == 1
    assert word in findings[0].message


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"file\n\xff\n", "not UTF-8"),
        (b"name\na\n", "no column 'file'"),
        (b"file,File\na,b\n", "same name"),
        (b'file\n"a', "line"),
        (b"", "empty"),
    ],
)
def test_faulty_tables_are_errors(tmp_path: Path, text: bytes, word: str) -> None:
    with pytest.raises(ReadError, match=word):
        read_index(_index(tmp_path, text))


@pytest.fixture(scope="module")
def index_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_give_an_index_or_a_read_error(index_folder: Path, data: bytes) -> None:
    file = _index(index_folder, b"file,group\n" + data)
    try:
        index = read_index(file)
    except ReadError as e:
        assert "index.csv" in e.message  # noqa: PT017 - the other outcome is checked below
    else:
        assert all(index.rows)


def test_items_of_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, [{"file": "plate 1/孔2.tif", "group": "g"}, {"file": "b.tif"}])
    (tmp_path / "images" / ".hidden").write_bytes(b"")
    source = open_source(DataSection(source=str(tmp_path)), Path())
    assert source.findings == ()
    assert [(i.id, i.group, i.stratum) for i in source.items] == [("b", None, None), ("plate 1/孔2", "g", None)]


def test_what_is_missing_or_too_much(tmp_path: Path) -> None:
    write_folder(tmp_path, [{"file": "a"}, {"file": "b"}, {"file": "gone"}, {"file": "bare"}])
    (tmp_path / "images" / "gone.tif").unlink()
    (tmp_path / "masks" / "bare.png").unlink()
    write_png(tmp_path / "images" / "a.png", scene(0)[0])
    write_tiff(tmp_path / "images" / "c.tif", scene(9)[0])
    write_png(tmp_path / "masks" / "c.png", scene(9)[1])
    (tmp_path / "images" / "d.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "images" / "notes.txt").write_text("x")
    findings = open_source(DataSection(source=str(tmp_path)), Path()).findings
    assert sorted((f.level, f.code, f.file) for f in findings) == [
        ("error", "format", "images/d.jpg"),
        ("error", "index", "index.csv"),
        ("error", "missing-mask", "images/bare"),
        ("error", "orphan-mask", "masks/gone.png"),
        ("error", "same-name", "images/a.tif"),
        ("warning", "index", "images/c"),
        ("warning", "not-an-image", "images/notes.txt"),
    ]
    assert all(f.what_to_do for f in findings)


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder images/"):
        open_source(DataSection(source=str(tmp_path)), Path())
    with pytest.raises(DataError, match="no such folder or file"):
        open_source(DataSection(source="nowhere"), tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="neither a folder nor a JSON"):
        open_source(DataSection(source="a.txt"), tmp_path)


def test_frames_of_folders_files_and_data_sets(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", [{**r, "file": f"t{i}.tif"} for i, r in enumerate(plain_rows(11))])
    by_folder = list(iter_frames([data]))
    assert [f.id for f in by_folder] == [f"t{i}" for i in range(11)]
    assert {f.pixel_size_um for f in by_folder} == {0.5}
    assert [f.id for f in iter_frames([data / "images"])] == [f.id for f in by_folder]
    single = next(iter_frames([data / "images" / "t3.tif"]))
    frame = single.read(["phase"])
    assert (frame.channels, frame.pixel_size_um) == (("phase",), 0.5)
    assert single.read(["phase"], 0.7).pixel_size_um == 0.7
    loose = tmp_path / "loose"
    write_png(loose / "x 10.png", scene(1)[0])
    write_png(loose / "x 9.png", scene(1)[0])
    (loose / "movie.AVI").write_bytes(b"")
    (loose / "readme.txt").write_text("")
    assert [f.id for f in iter_frames([loose])] == ["x 9", "x 10"]
    assert next(iter(iter_frames([loose], suffixes=[".avi"]))).path.name == "movie.AVI"
    with pytest.raises(ReadError, match="no such file or folder"):
        list(iter_frames([tmp_path / "none"]))
