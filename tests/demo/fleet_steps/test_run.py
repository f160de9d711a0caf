"""The demo needs free disk, and says so before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellfleet.demo.fleet_steps.run import check_free_space
from cellfleet.errors import StorageError


def test_a_disk_that_is_too_small_is_reported_before_anything_is_done(tmp_path: Path) -> None:
    check_free_space(tmp_path, lambda _path: 2_000_000_000)
    with pytest.raises(StorageError, match="412 MB free; the fleet of the demo needs 2000 MB") as caught:
        check_free_space(tmp_path, lambda _path: 412_000_000)
    assert "--only-model" in caught.value.hint
