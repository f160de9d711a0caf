"""Threads that wait sleep, and whoever wants it otherwise says so before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support_journeys import environment

CODE = """\
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ["OMP_WAIT_POLICY"], flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
import cellfleet.train.{module}
"""
"""It ends where torch would be loaded."""


@pytest.mark.parametrize("module", ["loop", "export", "networks"])
@pytest.mark.parametrize(("given", "held"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_it_is_said_before_torch_is_loaded(module: str, given: dict[str, str], held: str) -> None:
    env = {k: v for k, v in environment().items() if k != "OMP_WAIT_POLICY"} | given
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module=module)], env=env, check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{held}\n"
