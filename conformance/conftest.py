"""Options of the battery: which program, which bundle."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conformance.bench import Bench


def pytest_addoption(parser: pytest.Parser) -> None:
    """The program under judgement."""
    group = parser.getgroup("conformance")
    group.addoption("--segmenter", help="command of the segmenter program; the battery adds --bundle FILE")
    group.addoption("--bundle", help="bundle that the program is to work with; its golden frames are segmented")
    group.addoption("--patience-s", type=float, default=180.0, help="longest wait for one line, seconds")


@pytest.fixture(scope="session")
def bench(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    command, bundle = pytestconfig.getoption("--segmenter"), pytestconfig.getoption("--bundle")
    if not command or not bundle:
        raise pytest.UsageError("name a program and a bundle: --segmenter COMMAND --bundle FILE")

    def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*shlex.split(command), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
        )

    found = Bench(
        start, Path(bundle).absolute(), tmp_path_factory.mktemp("bench"), pytestconfig.getoption("--patience-s")
    )
    yield found
    found.close()
