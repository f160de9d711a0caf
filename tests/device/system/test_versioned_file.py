"""Versioned files: the newest valid one counts, whatever a disk did to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.device.system.versioned_file import VersionedFile


def test_the_newest_valid_file_counts(tmp_path: Path) -> None:
    file = VersionedFile(tmp_path, "x", keep=3)
    for value in range(6):
        file.write({"v": value})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x-4.json", "x-5.json", "x-6.json"]
    (tmp_path / "x-6.json").write_bytes((tmp_path / "x-5.json").read_bytes())
    newest = VersionedFile(tmp_path, "x").read()
    assert (newest.content, newest.number, newest.damaged) == ({"v": 4}, 5, ("x-6.json",))
    again = VersionedFile(tmp_path, "x")
    again.read()
    assert again.write({"v": 9}) == 7


@given(st.data())
def test_a_flipped_byte_is_never_believed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("n")
    file = VersionedFile(folder, "x")
    file.write({"active": "old"})
    file.write({"active": "new", "n": [1, 2.5, None, "ü"]})
    path = folder / "x-2.json"
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(raw))
    content = VersionedFile(folder, "x").read().content
    assert content in ({"active": "old"}, {"active": "new", "n": [1, 2.5, None, "ü"]})
