"""One small bundle for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from support_bundle import tiny_bundle, unpacked


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a valid bundle; nobody may change it."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def files(bundle: Path) -> dict[str, bytes]:
    """The files of that bundle by name."""
    return unpacked(bundle)
