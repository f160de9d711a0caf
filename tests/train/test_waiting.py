"""Threads that wait sleep, and whoever wants it otherwise says so before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support_journeys import environment

CODE = """\
import os, sys
import cellfleet.train.{module}
assert list(sys.modules).index("cellfleet.train.waiting") < list(sys.modules).index("torch")
sys.stdout.write(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize("module", ["loop", "export", "networks"])
@pytest.mark.parametrize(("given", "held"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_it_is_said_before_torch_is_loaded(module: str, given: dict[str, str], held: str) -> None:
    env = {k: v for k, v in environment().items() if k != "OMP_WAIT_POLICY"} | given
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module=module)], env=env, check=True, capture_output=True, text=True
    )
    assert done.stdout == held
