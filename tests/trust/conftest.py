"""A trust folder is made once; each test works on a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from support_trust import Site, make_folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("trust") / "trust").path


@pytest.fixture
def site(tmp_path: Path, template: Path) -> Site:
    return Site(tmp_path, template)
