"""A small network of the kind that training makes, built without torch: normalisation, convolutions, a skip, two heads.

It cuts bright cells from a dark ground. The convolutions between normalisation and heads can be quantised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cellfleet.bundle.folder import ModelFolder
from cellfleet.bundle.spec import Variant
from cellfleet.canonical import sha256_hex
from cellfleet.ports import write_atomic
from support_onnx import FP32, HEADS, tiny_folder, tiny_spec

_OPSET = 18


def unet_onnx(outlier: float = 1.0) -> bytes:
    """The network as ONNX bytes.

    Args:
        outlier: gain of a feature that no head looks at. A great one spreads the range of the tensor that it shares with
            useful features, so that eight bits are too few for these.
    """
    weights = {
        "enter.weight": _enter(outlier),
        "enter.bias": np.array([0, 0, -0.5, 0], np.float32),
        "wide.weight": _wide(),
        "wide.bias": np.zeros(4, np.float32),
        "merge.weight": _merge(),
        "merge.bias": np.array([0, 0, 0.1, 0.2], np.float32),
        "up.weight": np.eye(4, dtype=np.float32)[:, :, None, None]
        * np.array([1, 1, 0.1, 0.01], np.float32)[:, None, None],
        "up.bias": np.zeros(4, np.float32),
        "top.weight": np.array([[6, 0, 0, 0], [0, 6, 0, 0]], np.float32)[:, :, None, None],
        "top.bias": np.array([-9.0, -6.0], np.float32),
        "axes": np.array([2, 3], np.int64),
        "parts": np.array([1, 1], np.int64),
    }
    nodes = [
        *(_node("Unsqueeze", [moment, "axes"], [f"{moment}4"]) for moment in ("mean", "std")),
        _node("Sub", ["image", "mean4"], ["centred"]),
        _node("Div", ["centred", "std4"], ["normal"]),
        *_conv("enter", "normal", 3),
        _node("Relu", ["enter"], ["enter_relu"]),
        *_conv("wide", "enter_relu", 5),
        _node("Relu", ["wide"], ["wide_relu"]),
        _node("Concat", ["enter_relu", "wide_relu"], ["skip"], axis=1),
        *_conv("merge", "skip", 1),
        _node("Relu", ["merge"], ["merge_relu"]),
        _node("ConvTranspose", ["merge_relu", "up.weight", "up.bias"], ["up"], kernel_shape=[1, 1]),
        _node("Add", ["up", "enter_relu"], ["sum"]),
        *_conv("top", "sum", 1),
        _node("Split", ["top", "parts"], ["logit0", "logit1"], axis=1),
        _node("Sigmoid", ["logit0"], ["foreground"]),
        _node("Sigmoid", ["logit1"], ["distance"]),
    ]
    inputs = [_value("image", ["N", 1, "H", "W"]), _value("mean", ["N", 1]), _value("std", ["N", 1])]
    outputs = [_value(head.name, ["N", 1, "H", "W"]) for head in HEADS]
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "unet", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="tests")
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def unet_folder(path: Path, *, outlier: float = 1.0) -> ModelFolder:
    """Write a model folder of the network with one variant, ``onnxruntime/fp32``."""
    folder = tiny_folder(path, tiny_spec())
    data = unet_onnx(outlier)
    variant = Variant(engine="onnxruntime", precision="fp32", file=FP32, sha256=sha256_hex(data))
    write_atomic(folder.file(FP32), data)
    folder.with_variant(variant).save()
    return ModelFolder.load(path)


def _enter(outlier: float) -> NDArray[np.float32]:
    """Box mean, dark parts, bright parts, and the pixel itself times ``outlier``."""
    weight = np.zeros((4, 1, 3, 3), np.float32)
    weight[0] = weight[2] = 1 / 9
    weight[1] = -1 / 9
    weight[3, 0, 1, 1] = outlier
    return weight


def _wide() -> NDArray[np.float32]:
    """The 5 x 5 box mean of every feature but the last."""
    weight = np.zeros((4, 4, 5, 5), np.float32)
    for i in range(3):
        weight[i, i] = 1 / 25
    return weight


def _merge() -> NDArray[np.float32]:
    """Half of the fine and half of the wide mean; the wide mean alone; a little of both."""
    weight = np.zeros((4, 8, 1, 1), np.float32)
    weight[0, 0] = weight[0, 4] = 0.5
    weight[1, 4] = 1.0
    weight[2, 6] = weight[3, 2] = 0.05
    return weight


def _conv(name: str, source: str, side: int) -> list[onnx.NodeProto]:
    pads = [side // 2] * 4
    return [_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [name], kernel_shape=[side, side], pads=pads)]


def _node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, name=f"node_{outputs[0]}", **attributes)


def _value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
