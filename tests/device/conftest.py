"""Releases that the tests of an instrument share."""

from __future__ import annotations

import pytest

from support_device import Releases, make_releases


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return make_releases(tmp_path_factory.mktemp("releases"))
