"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support_cpu_time import CpuTime
from support_once import Once, maker

# A busy machine must not fail a test: no example is timed.
settings.register_profile("cellfleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cellfleet")

os.environ.setdefault("OMP_NUM_THREADS", "1")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job; commands under test must not inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real microscopy; a test that needs it is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CELLFLEET_SHARED_DATA", str(default)))
    if not (folder / "usiigaci_phase" / "index.csv").is_file():
        pytest.skip("no real data beside this checkout (set CELLFLEET_SHARED_DATA)")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """The last line of a run says what it cost."""
    config.pluginmanager.register(CpuTime(), "cpu-time")


LONG = ("journeys/test_demo_fleet", "journeys/test_stopped", "journeys/test_demo", "fleet/test_fuzz", "journeys/")
"""Files whose tests take minutes, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that no worker waits for it at the end."""
    items.sort(key=lambda item: next((i for i, name in enumerate(LONG) if name in item.nodeid), len(LONG)))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Give `once(name, make)`: a folder that `make` fills once for all workers; nobody may change it afterwards."""
    return maker(tmp_path_factory)
