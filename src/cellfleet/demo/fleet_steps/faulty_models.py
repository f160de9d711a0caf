"""Make two faulty models from a good one: one segments wrongly, one needs too much memory.

Both are plain ONNX that load and run. The first inverts its heads. The second adds attention of every patch of the frame
to every other one, so that time and memory grow with the square of a frame's area: small golden frames still pass.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cellfleet.bundle import ModelFolder
from cellfleet.bundle.folder import PORTABLE
from cellfleet.canonical import sha256_hex
from cellfleet.ports import make_dir, write_atomic

Edit = Callable[[onnx.ModelProto], None]
REFERENCE = "onnxruntime/fp32"
_TOKENS_PER_SIDE = 96
_WIDTH = 32
_FAINT = 1e-9


def make_model(good: Path, bad: Path, version: str, edit: Edit) -> ModelFolder:
    """Make a model folder with the edited reference variant of another one.

    Args:
        good: source model folder.
        bad: model folder to make; an existing one is replaced.
        version: version of the new model.
        edit: changes a network in place; called for the reference and for the portable form.

    Raises:
        BundleError: ``good`` is not a model folder.
        StorageError: the write fails.
    """
    source = ModelFolder.load(good)
    reference = next(v for v in source.variants if v.name == REFERENCE)
    shutil.rmtree(bad, ignore_errors=True)
    make_dir(bad)
    network = _edited(source.read(reference.file, reference.sha256), edit)
    portable = _edited(source.read(PORTABLE, source.model.portable_sha256), edit)
    make_dir((bad / reference.file).parent)
    write_atomic(bad / reference.file, network)
    write_atomic(bad / PORTABLE, portable)
    fresh = {"sha256": sha256_hex(network), "golden_ap50": None, "least_golden_ap50": None}
    model = source.model.model_copy(
        update={
            "spec": source.spec.model_copy(update={"version": version}),
            "variants": (reference.model_copy(update=fresh),),
            "portable_sha256": sha256_hex(portable),
        }
    )
    made = ModelFolder(bad, model)
    made.save()
    return made


def _edited(data: bytes, edit: Edit) -> bytes:
    model = onnx.load_from_string(data)
    edit(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def inverted(model: onnx.ModelProto) -> None:
    """Make every head return 1 - p, which swaps cells and background."""
    graph = model.graph
    graph.initializer.append(_constant("inverted.one", np.float32(1)))
    for output in graph.output:
        inner = _move_output(graph, output.name)
        graph.node.append(
            helper.make_node("Sub", ["inverted.one", inner], [output.name], name=f"inverted/{output.name}")
        )


def attentive(frame_px: int) -> Edit:
    """Make an edit that adds attention of every patch of the frame to every other one; masks stay the same.

    Args:
        frame_px: side of an instrument's frames; they get at most 96 x 96 patches, smaller frames fewer.
    """
    patch = max(1, -(-frame_px // _TOKENS_PER_SIDE))
    pool = {"kernel_shape": [patch, patch], "strides": [patch, patch], "ceil_mode": 1}
    keys = np.linspace(-1.0, 1.0, _WIDTH, dtype=np.float32).reshape(1, 1, _WIDTH)

    def edit(model: onnx.ModelProto) -> None:
        graph = model.graph
        graph.initializer.extend(
            [
                _constant("attention.channels", np.array([1], np.int64)),
                _constant("attention.column", np.array([0, -1, 1], np.int64)),
                _constant("attention.keys", keys / np.float32(65535)),
                _constant("attention.faint", np.float32(_FAINT)),
            ]
        )
        first = graph.output[0].name
        inner = _move_output(graph, first)
        graph.node.extend(
            [
                _node("ReduceMean", ["image", "attention.channels"], "plane", keepdims=1),
                _node("AveragePool", ["plane"], "patches", **pool),
                _node("Reshape", ["patches", "attention.column"], "column"),
                _node("Mul", ["column", "attention.keys"], "queries"),
                _node("Transpose", ["queries"], "turned", perm=[0, 2, 1]),
                _node("MatMul", ["queries", "turned"], "scores"),
                _node("Softmax", ["scores"], "weights", axis=-1),
                _node("MatMul", ["weights", "queries"], "seen"),
                _node("ReduceMean", ["seen"], "summary", keepdims=0),
                _node("Mul", ["summary", "attention.faint"], "trace"),
                helper.make_node("Add", [inner, "attention/trace"], [first], name="attention/add"),
            ]
        )
        _sort(graph)

    return edit


def _node(op: str, inputs: list[str], name: str, **attributes: object) -> onnx.NodeProto:
    """Make a node ``attention/<name>``; an input without a dot is the output of such a node, except the image."""
    named = [x if "." in x or x == "image" else f"attention/{x}" for x in inputs]
    return helper.make_node(op, named, [f"attention/{name}"], name=f"attention/{name}", **attributes)


def _constant(name: str, value: np.ndarray | np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _move_output(graph: onnx.GraphProto, name: str) -> str:
    """Rename an output inside the graph, so that new nodes can produce it; return the new name."""
    inner = f"{name}.before"
    for node in graph.node:
        for i, made in enumerate(node.output):
            if made == name:
                node.output[i] = inner
        for i, used in enumerate(node.input):
            if used == name:
                node.input[i] = inner
    return inner


def _sort(graph: onnx.GraphProto) -> None:
    """Sort the nodes topologically."""
    known = {i.name for i in graph.input} | {i.name for i in graph.initializer} | {""}
    waiting, done = list(graph.node), []
    while waiting:
        ready = [n for n in waiting if known.issuperset(n.input)]
        assert ready, "a graph with a cycle"
        done += ready
        known |= {o for n in ready for o in n.output}
        waiting = [n for n in waiting if not known.issuperset(n.output)]
    del graph.node[:]
    graph.node.extend(done)
