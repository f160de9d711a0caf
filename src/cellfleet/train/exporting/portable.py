"""The single-input form that other programs run: the contract's graph, with the moments taken inside."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from cellfleet.runtime.objects import STD_FLOOR

_PREFIX = "moments/"


def portable(contract: bytes) -> bytes:
    """``image`` [N,C,H,W] raw values -> the same outputs; ``mean`` and ``std`` are computed per image and channel.

    Args:
        contract: a network by the graph contract, as ONNX bytes.

    Returns:
        ONNX bytes; the same for the same contract.
    """
    model = onnx.load_model_from_string(contract)
    graph = model.graph
    (image,) = [i for i in graph.input if i.name == "image"]
    del graph.input[:]
    graph.input.append(image)
    nodes = [*_moments(), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    plane, floor = np.array([2, 3], np.int64), np.array(STD_FLOOR, np.float64)
    graph.initializer.extend(
        numpy_helper.from_array(value, _PREFIX + name) for name, value in (("plane", plane), ("floor", floor))
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _moments() -> list[NodeProto]:
    """In double precision, so that a bright constant frame has no deviation but the floor."""
    return [
        _node("Cast", ["image"], "exact", to=TensorProto.DOUBLE),
        _node("ReduceMean", ["exact", "plane"], "centre", keepdims=1),
        _node("Sub", ["exact", "centre"], "deviation"),
        _node("Mul", ["deviation", "deviation"], "squares"),
        _node("ReduceMean", ["squares", "plane"], "variance", keepdims=0),
        _node("Sqrt", ["variance"], "root"),
        _node("Max", ["root", "floor"], "spread"),
        _node("Cast", ["spread"], "std", to=TensorProto.FLOAT),
        _node("Squeeze", ["centre", "plane"], "level"),
        _node("Cast", ["level"], "mean", to=TensorProto.FLOAT),
    ]


def _node(kind: str, inputs: list[str], output: str, **attributes: int) -> NodeProto:
    names = [n if n == "image" else _PREFIX + n for n in inputs]
    result = output if output in ("mean", "std") else _PREFIX + output
    return helper.make_node(kind, names, [result], _PREFIX + output, **attributes)
