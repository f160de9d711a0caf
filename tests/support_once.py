"""What takes long to make and is only read is made once for all workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

Once = Callable[[str, Callable[[Path], None]], Path]


def maker(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)` of this test run: the folder of that name, which `make` filled in the first worker that asked."""
    root = tmp_path_factory.getbasetemp()
    return partial(_once, root.parent if "PYTEST_XDIST_WORKER" in os.environ else root)


def _once(root: Path, name: str, make: Callable[[Path], None]) -> Path:
    folder, made = root / name, root / f"{name}.made"
    with FileLock(root / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
