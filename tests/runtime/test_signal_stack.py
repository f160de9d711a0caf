"""After networks came and went, Ctrl-C is still Ctrl-C and no crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support_journeys import environment
from support_onnx import tiny_folder

CODE = """\
import os, signal, sys
import numpy as np
from pathlib import Path
from cellfleet.runtime.engines import make_engine
from cellfleet.runtime.signal_stack import signal_stack
onnx = Path(sys.argv[1]).read_bytes()
arrays = (np.zeros((1, 1, 64, 64), np.float32), np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
before = signal_stack()
engines = [make_engine("openvino", onnx, 1) for _ in range(3)]
for engine in engines:
    engine.run(*arrays)
assert signal_stack() == before
del engine
while engines:
    engines.pop(0)  # the first that came goes first
    assert signal_stack() == before
try:
    os.kill(os.getpid(), signal.SIGINT)
    sys.stdout.write("not heard")
except KeyboardInterrupt:
    sys.stdout.write("interrupted")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are those of Linux")
def test_ctrl_c_after_networks_of_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = tiny_folder(tmp_path / "model")
    variant = folder.variants[0]
    (tmp_path / "net.onnx").write_bytes(folder.read(variant.file, variant.sha256))
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "net.onnx")],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "interrupted"), done.stderr
