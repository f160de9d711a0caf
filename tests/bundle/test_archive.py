"""The container: hand-made hostile archives, and damage anywhere."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellfleet.bundle import open_bundle
from cellfleet.bundle.archive import ArchiveLimits, index, pack, read_span
from cellfleet.bundle.refusals import BundleRefused, NotABundle, TooLarge, UnsafeEntry, UnsafeName
from cellfleet.errors import BundleError
from support_bundle import unpacked

_CENTRAL = b"PK\x01\x02"
_END_BYTES = 22


def zipped(
    *entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    """A zip archive as Python's library writes it, names and all."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
        archive.comment = comment
    return out.getvalue()


def plain(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    """An entry as a bundle has it, but for the given mode."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def patched(data: bytes, offset: int, form: str, *values: int) -> bytes:
    """The bytes with little-endian numbers put at an offset."""
    out = bytearray(data)
    struct.pack_into(f"<{form}", out, offset, *values)
    return bytes(out)


def refused(tmp_path: Path, data: bytes, limits: ArchiveLimits | None = None) -> BundleRefused:
    """Open some bytes as an archive; the refusal must name no way but distrust."""
    path = tmp_path / "x.bundle.zip"
    path.write_bytes(data)
    with pytest.raises(BundleRefused) as caught:
        index(path, limits or ArchiveLimits())
    assert "do not use this file" in caught.value.hint
    return caught.value


GOOD = pack({"a.txt": b"first", "b/c.txt": b"second"})
_FIRST_CENTRAL = GOOD.index(_CENTRAL)


def test_what_is_packed_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(GOOD)
    spans = index(path, ArchiveLimits())
    assert {n: read_span(path, s) for n, s in spans.items()} == {"a.txt": b"first", "b/c.txt": b"second"}


def test_packing_does_not_depend_on_the_order() -> None:
    assert pack({"b/c.txt": b"second", "a.txt": b"first"}) == GOOD


def test_other_programs_can_read_it() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.txt", "b/c.txt"]


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "a/../../evil", "/etc/passwd", "C:/windows", "a\\b", "..\\evil", "a//b", "./a", "a/", "", "a\nb", "a\n", "con",
        "x/NUL.txt", "lpt1.json", "trailing.", "a:b", "caf\u00e9", "a\x00b", "x" * 201,
    ],
)  # fmt: skip
def test_unsafe_names_are_neither_written_nor_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeName):
        pack({name: b"x"})
    info = plain("x")
    info.filename = name
    if "\x00" in name or "\\" in name:
        data = zipped((plain("aXb" if "\x00" in name else name.replace("\\", "X")), b"x"))
        data = data.replace(b"aXb", b"a\x00b").replace(b"..Xevil", b"..\\evil")
        if "\\" in name:
            data = data.replace(b"a\x00b", b"a\\b")
    else:
        data = zipped((info, b"x"))
    assert isinstance(refused(tmp_path, data), UnsafeName | UnsafeEntry)


def test_names_that_are_one_on_some_disks(tmp_path: Path) -> None:
    with pytest.raises(UnsafeName, match="one file on some disks"):
        pack({"a.txt": b"1", "A.TXT": b"2"})
    assert isinstance(refused(tmp_path, zipped((plain("a"), b"1"), (plain("A"), b"2"))), UnsafeName)


def test_duplicate_names(tmp_path: Path) -> None:
    data = zipped((plain("aa"), b"1"), (plain("bb"), b"2")).replace(b"bb", b"aa")
    assert isinstance(refused(tmp_path, data), UnsafeName)


def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = zipped(("bundle.json", b"\0" * 30_000_000), method=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    assert "is compressed" in str(refused(tmp_path, bomb))
    assert isinstance(refused(tmp_path, bomb), UnsafeEntry)


def test_a_link(tmp_path: Path) -> None:
    error = refused(tmp_path, zipped((plain("bundle.json", 0o120777), b"/etc/passwd")))
    assert isinstance(error, UnsafeEntry)
    assert "link" in str(error)


def test_a_program(tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path, zipped((plain("run.sh", 0o104755), b"x"))), UnsafeEntry)


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (18, "I", 4),  # packed size
        (22, "I", 4),  # size
        (14, "I", 1),  # CRC
        (6, "H", 1),  # encrypted
        (8, "H", 8),  # method
        (26, "H", 4),  # length of the name
        (28, "H", 1),  # length of extra fields
    ],
)
def test_a_header_that_contradicts_the_directory(tmp_path: Path, offset: int, form: str, value: int) -> None:
    assert isinstance(refused(tmp_path, patched(GOOD, offset, form, value)), UnsafeEntry)


@pytest.mark.parametrize(
    ("offset", "form", "values"),
    [
        (8, "H", [1]),  # encrypted
        (8, "H", [8]),  # sizes behind the data
        (10, "H", [8]),  # deflated
        (20, "II", [6, 6]),  # one byte more, which is the next header's
        (20, "II", [2**31, 2**31]),  # far more than the file has
        (42, "I", [3]),  # starts within the header
    ],
)
def test_a_directory_that_lies(tmp_path: Path, offset: int, form: str, values: list[int]) -> None:
    error = refused(tmp_path, patched(GOOD, _FIRST_CENTRAL + offset, form, *values))
    assert isinstance(error, UnsafeEntry | TooLarge)


def test_bytes_where_none_belong(tmp_path: Path) -> None:
    end = len(GOOD) - _END_BYTES
    before = b"MZ" + GOOD
    behind = GOOD + b"\0"
    comment = zipped((plain("a"), b"1"), comment=b"hello")
    between = patched(GOOD[:_FIRST_CENTRAL] + b"hidden" + GOOD[_FIRST_CENTRAL:], end + 6 + 16, "I", _FIRST_CENTRAL + 6)
    in_directory = patched(GOOD[:end] + b"hidden" + GOOD[end:], end + 6 + 12, "I", end - _FIRST_CENTRAL + 6)
    for data in (before, behind, comment):
        assert isinstance(refused(tmp_path, data), NotABundle)
    assert isinstance(refused(tmp_path, between), UnsafeEntry)
    assert isinstance(refused(tmp_path, in_directory), UnsafeEntry | NotABundle)


def test_extra_fields_and_comments_of_entries(tmp_path: Path) -> None:
    extra, comment = plain("a"), plain("a")
    extra.extra, comment.comment = b"\x99\x99\x01\x00x", b"hello"
    for info in (extra, comment):
        assert isinstance(refused(tmp_path, zipped((info, b"1"))), UnsafeEntry)


def test_zip64(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open(plain("a"), "w", force_zip64=True) as f:
        f.write(b"1")
    assert isinstance(refused(tmp_path, out.getvalue()), UnsafeEntry)
    end = len(GOOD) - _END_BYTES
    record = struct.pack(
        "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, end - _FIRST_CENTRAL, _FIRST_CENTRAL
    ) + struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)  # fmt: skip
    hidden = GOOD[:end] + record + GOOD[end:]
    length = end - _FIRST_CENTRAL + len(record)
    error = refused(tmp_path, patched(hidden, end + len(record) + 12, "I", length))
    assert isinstance(error, NotABundle)
    assert "64-bit" in str(error)


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"hello, this is no archive at all", GOOD[: len(GOOD) // 2], GOOD[:-1], GOOD[1:], zipped()]
)
def test_no_archive_or_half_of_one(tmp_path: Path, data: bytes) -> None:
    assert isinstance(refused(tmp_path, data), NotABundle)


def test_limits(tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path, GOOD, ArchiveLimits(archive_bytes=100)), TooLarge)
    assert isinstance(refused(tmp_path, GOOD, ArchiveLimits(file_bytes=5)), TooLarge)
    assert isinstance(refused(tmp_path, GOOD, ArchiveLimits(files=1)), TooLarge)
    path = tmp_path / "sparse.bundle.zip"
    with path.open("wb") as f:
        f.truncate(3_000_000_000)
    with pytest.raises(TooLarge, match="3,000,000,000"):
        index(path, ArchiveLimits())


def test_no_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        open_bundle(tmp_path / "absent.bundle.zip")
    with pytest.raises(BundleError, match="is a folder"):
        open_bundle(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_refused_or_changes_nothing(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(bundle.read_bytes())
    place = st.one_of(
        st.integers(0, len(raw) - 1), st.integers(0, 200), st.integers(len(raw) - 2_000, len(raw) - 1)
    )  # fmt: skip
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(place) % max(1, len(raw))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "end"]))
        some = data.draw(st.binary(min_size=1, max_size=8))
        if kind == "flip":
            raw[at : at + len(some)] = some
        elif kind == "insert":
            raw[at:at] = some
        else:
            del raw[at : at + len(some) if kind == "cut" else None]
    target = tmp_path / "damaged.bundle.zip"
    target.write_bytes(raw)
    try:
        opened = open_bundle(target)
    except BundleError:
        return
    assert {n: opened.read(n) for n in opened.names} == unpacked(bundle)
