"""The INT8 network: what is quantised, how, and that the bytes are the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from cellfleet.bundle import check_onnx
from cellfleet.canonical import sha256_hex
from cellfleet.errors import ConfigError, OptimizeError
from cellfleet.optimize.calibration import Inputs
from cellfleet.optimize.int8 import to_int8
from support_images import scene
from support_onnx import tiny_onnx, tiny_spec
from support_unet import unet_onnx


class Scenes:
    """A calibration reader over scenes of different sizes."""

    def __init__(self, count: int = 3) -> None:
        self._all: list[Inputs] = []
        for seed in range(count):
            image = scene(seed, 40 + 9 * seed, 64)[0].astype(np.float32)
            moments = np.array([[image.mean()]], np.float32), np.array([[image.std()]], np.float32)
            self._all.append({"image": image[None, None], "mean": moments[0], "std": moments[1]})
        self._next = list(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = self._all[start_index:end_index]

    def get_next(self) -> Inputs | None:
        return self._next.pop(0) if self._next else None


def int8(method: str = "minmax", keep_fp32: Sequence[str] = ()) -> onnx.ModelProto:
    return onnx.load_from_string(to_int8(unet_onnx(), Scenes(), method=method, keep_fp32=keep_fp32))


def from_dequantised(model: onnx.ModelProto, node_name: str) -> list[bool]:
    """For each input of a node, whether it comes from a DequantizeLinear."""
    made = {o: n.op_type for n in model.graph.node for o in n.output}
    node = next(n for n in model.graph.node if n.name == node_name)
    return [made.get(i) == "DequantizeLinear" for i in node.input]


def quantised_convolutions(model: onnx.ModelProto) -> set[str]:
    return {
        n.name
        for n in model.graph.node
        if n.op_type in ("Conv", "ConvTranspose") and from_dequantised(model, n.name)[1]
    }


def test_activations_are_unsigned_and_weights_signed_per_channel_with_seven_bits() -> None:
    model = int8()
    tensors = {t.name: t for t in model.graph.initializer}
    quantise = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert quantise
    assert {tensors[n.input[2]].data_type for n in quantise} == {TensorProto.UINT8}
    made = {o: n for n in model.graph.node for o in n.output}
    for conv in (n for n in model.graph.node if n.name in ("node_enter", "node_wide", "node_merge", "node_up")):
        weight = made[conv.input[1]]
        values = numpy_helper.to_array(tensors[weight.input[0]])
        assert values.dtype == np.int8
        assert np.abs(values.astype(int)).max() <= 64
        channels = values.shape[1 if conv.op_type == "ConvTranspose" else 0]
        assert numpy_helper.to_array(tensors[weight.input[1]]).shape == (channels,)


def test_normalisation_and_heads_stay_fp32() -> None:
    model = int8()
    assert quantised_convolutions(model) == {"node_enter", "node_wide", "node_merge", "node_up"}
    for name in ("node_mean4", "node_centred", "node_normal", "node_foreground", "node_distance", "node_logit0"):
        assert not any(from_dequantised(model, name))
    top = next(n for n in model.graph.node if n.name == "node_top")
    weights = {t.name: t.data_type for t in model.graph.initializer}
    assert weights[top.input[1]] == TensorProto.FLOAT
    assert [i.name for i in model.graph.input] == ["image", "mean", "std"]


def test_named_nodes_and_weights_stay_fp32() -> None:
    assert quantised_convolutions(int8(keep_fp32=("wide",))) == {"node_enter", "node_merge", "node_up"}
    assert quantised_convolutions(int8(keep_fp32=("up.wei", "node_ent"))) == {"node_wide", "node_merge"}


def test_a_name_that_fits_nothing_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="'widde'") as caught:
        int8(keep_fp32=("widde",))
    assert "node_wide" in caught.value.hint


@pytest.mark.parametrize("keep", [(), ("node",)])
def test_nothing_to_quantise(keep: tuple[str, ...]) -> None:
    network = unet_onnx() if keep else tiny_onnx()
    with pytest.raises(OptimizeError, match="no convolution to quantise"):
        to_int8(network, Scenes(), method="minmax", keep_fp32=keep)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_every_method_gives_a_file_that_bundles_take_and_prints_nothing(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = to_int8(unet_onnx(), Scenes(), method=method)
    check_onnx(first, tiny_spec())
    assert capsys.readouterr() == ("", "")
    assert to_int8(unet_onnx(), Scenes(), method=method) == first


def test_the_calibration_frames_decide() -> None:
    assert to_int8(unet_onnx(), Scenes(1), method="minmax") != to_int8(unet_onnx(), Scenes(4), method="minmax")


def test_the_bytes_name_no_folder_and_do_not_depend_on_the_process(tmp_path: Path) -> None:
    data = to_int8(unet_onnx(), Scenes(), method="minmax")
    assert not any(
        word in data for word in (b"/tmp", b"cellfleet-int8", bytes(str(Path.home()), "utf-8"), b"pre_process")
    )
    code = (
        "from cellfleet.canonical import sha256_hex\n"
        "from cellfleet.optimize.int8 import to_int8\n"
        "from support_unet import unet_onnx\n"
        "from optimize_scenes import Scenes\n"
        "print(sha256_hex(to_int8(unet_onnx(), Scenes(), method='minmax')))\n"
    )
    (tmp_path / "optimize_scenes.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    for seed in ("1", "2"):
        path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
        assert done.stdout.strip() == sha256_hex(data)
