"""Checkpoints: whole or not at all, of this run or refused, and nothing but tensors and plain data."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from cellfleet.errors import StorageError, TrainError
from cellfleet.train.checkpoint import Progress, load_checkpoint, save_checkpoint

PROGRESS = Progress(3, [{"epoch": 1, "loss": 0.1}], 2, 0.7, 12.5, "abc")


class Interrupting:
    """An object that cannot be written: pressing Ctrl-C while it is."""

    def __reduce__(self) -> str:
        raise KeyboardInterrupt


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, "me", PROGRESS, {"network": {"w": torch.arange(4.0)}})
    progress, stored = load_checkpoint(path, "me")
    assert progress == PROGRESS
    assert torch.equal(stored["network"]["w"], torch.arange(4.0))


def test_an_interrupted_write_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, "me", PROGRESS, {})
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, "me", Progress(4), {"network": torch.zeros(100_000), "odd": Interrupting()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        save_checkpoint(tmp_path / "file" / "checkpoint.pt", "me", PROGRESS, {})


def test_another_run(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", "me", PROGRESS, {})
    with pytest.raises(TrainError, match="other data or settings"):
        load_checkpoint(tmp_path / "c.pt", "you")


def test_an_absent_one(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "c.pt", "me")


class Evil:
    """What a hostile pickle does when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"format": 1, "identity": "me", "progress": Evil(tmp_path / "owned")}, tmp_path / "c.pt")
    with pytest.raises(TrainError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "c.pt", "me")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("kind", ["empty", "text", "half", "pickle", "list", "fields"])
def test_a_damaged_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, "me", PROGRESS, {"network": torch.zeros(1000)})
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"hello", "half": whole[: len(whole) // 2], "pickle": pickle.dumps([1])}.get(kind, whole)
    )
    if kind == "list":
        torch.save([1, 2], path)
    if kind == "fields":
        torch.save({"format": 1, "identity": "me", "progress": {"unknown": 1}}, path)
    with pytest.raises(TrainError, match="not a readable checkpoint"):
        load_checkpoint(path, "me")
