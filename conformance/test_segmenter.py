"""Judge a segmenter program: ``python -m pytest conformance --segmenter "COMMAND" --bundle FILE``."""

from __future__ import annotations

import pytest
from conformance.bench import Bench
from conformance.promises import PROMISES, Promise


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
def test_promise(bench: Bench, promise: Promise) -> None:
    promise(bench)
