"""A tiny network that obeys the graph contract and cuts bright discs from a dark ground; models of it, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cellfleet.bundle.folder import PORTABLE, Model, ModelFolder
from cellfleet.bundle.spec import Head, Lineage, ModelSpec, ObjectParams, Variant
from cellfleet.canonical import digest_of, sha256_hex
from cellfleet.ports import write_atomic
from cellfleet.runtime.objects import STD_FLOOR

FP32 = "variants/onnxruntime-fp32.onnx"
HEADS = (Head(name="foreground", kind="foreground"), Head(name="distance", kind="distance"))
_RADII = (1, 3)  # of the two box filters, one after the other
_OPSET = 18


def tiny_spec(
    name: str = "tiny", version: str = "1.0.0", channels: Sequence[str] = ("phase",), **fields: Any
) -> ModelSpec:
    """The ModelSpec of the tiny network; ``fields`` override (``target_pixel_size_um``, ``demands_pixel_size`` ...)."""
    objects = ObjectParams(
        foreground_threshold=0.5, seed_threshold=0.55, smooth_passes=0, min_seed_area_px=1, min_area_px=4
    )
    base: dict[str, Any] = {"stride": 4, "halo_px": 8, "objects": objects, "heads": HEADS}
    return ModelSpec(name=name, version=version, channels=tuple(channels), **(base | fields))


def tiny_onnx(channels: int = 1, *, gain: float = 6.0, level: float = 0.75, portable: bool = False) -> bytes:
    """The network: of the first channel, foreground = sigmoid(gain * (box3(z) - level)), distance = box7(foreground).

    Args:
        channels: number of input channels; those after the first are ignored.
        gain: steepness; a negative one draws the background, which is nonsense.
        level: where the foreground begins, in standard deviations of the frame; 99 finds nothing.
        portable: the form with the one input ``image``; the moments are taken inside.
    """
    inputs = [_value("image", ["N", channels, "H", "W"])]
    nodes: list[onnx.NodeProto] = []
    constants = [
        _constant("axes", np.array([2, 3], np.int64)),
        _constant("floor", np.array(STD_FLOOR, np.float64)),
        _constant("level", np.array(level, np.float32)),
        _constant("gain", np.array(gain, np.float32)),
    ]
    if portable:
        nodes += _moment_nodes()
    else:
        inputs += [_value(moment, ["N", channels]) for moment in ("mean", "std")]
        nodes += [_node("Unsqueeze", [m, "axes"], f"{m}4") for m in ("mean", "std")]
    nodes += [_node("Sub", ["image", "mean4"], "centred"), _node("Div", ["centred", "std4"], "normal")]
    constants += [_constant("first", _kernel(_RADII[0], channels)), _constant("second", _kernel(_RADII[1], 1))]
    constants += [_constant(f"pads{r}", np.array([0, 0, r, r, 0, 0, r, r], np.int64)) for r in _RADII]
    nodes += [
        *_box("normal", "first", _RADII[0], "smooth"),
        _node("Sub", ["smooth", "level"], "above"),
        _node("Mul", ["above", "gain"], "steep"),
        _node("Sigmoid", ["steep"], "foreground"),
        *_box("foreground", "second", _RADII[1], "distance"),
    ]
    outputs = [_value(head.name, ["N", 1, "H", "W"]) for head in HEADS]
    used = {i for node in nodes for i in node.input}
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [c for c in constants if c.name in used])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="tests")
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def tiny_folder(
    path: Path,
    spec: ModelSpec | None = None,
    *,
    gain: float = 6.0,
    level: float = 0.75,
    data_set: str = "0" * 64,
    training_run: str = "1" * 64,
) -> ModelFolder:
    """Write a model folder of the tiny network with one variant, ``onnxruntime/fp32``."""
    spec = spec or tiny_spec()
    count = len(spec.channels)
    contract = tiny_onnx(count, gain=gain, level=level)
    portable = tiny_onnx(count, gain=gain, level=level, portable=True)
    lineage = Lineage(
        data_set=data_set,
        training_run=training_run,
        project_commit=None,
        project_dirty=None,
        environment=digest_of({}),
        cellfleet_version="0.1.0",
    )
    model = Model(
        spec=spec,
        variants=(Variant(engine="onnxruntime", precision="fp32", file=FP32, sha256=sha256_hex(contract)),),
        portable_sha256=sha256_hex(portable),
        lineage=lineage,
        reference={"quantiles": [0.05, 0.5, 0.95], "columns": {"count": [4.0, 4.0, 4.0]}},
    )
    folder = ModelFolder(path, model)
    write_atomic(folder.file(FP32), contract)
    write_atomic(folder.file(PORTABLE), portable)
    folder.save()
    return ModelFolder.load(path)


def _moment_nodes() -> list[onnx.NodeProto]:
    """Mean and population deviation of every channel, in double precision, as [N,C,1,1] float32."""
    return [
        _node("Cast", ["image"], "exact", to=TensorProto.DOUBLE),
        _node("ReduceMean", ["exact", "axes"], "exact_mean", keepdims=1),
        _node("Sub", ["exact", "exact_mean"], "deviation"),
        _node("Mul", ["deviation", "deviation"], "squared"),
        _node("ReduceMean", ["squared", "axes"], "variance", keepdims=1),
        _node("Sqrt", ["variance"], "exact_std"),
        _node("Max", ["exact_std", "floor"], "floored"),
        _node("Cast", ["exact_mean"], "mean4", to=TensorProto.FLOAT),
        _node("Cast", ["floored"], "std4", to=TensorProto.FLOAT),
    ]


def _box(source: str, kernel: str, radius: int, out: str) -> list[onnx.NodeProto]:
    """A box filter whose edges are replicated."""
    padded = f"{source}_padded"
    side = 2 * radius + 1
    return [
        _node("Pad", [source, f"pads{radius}"], padded, mode="edge"),
        _node("Conv", [padded, kernel], out, kernel_shape=[side, side]),
    ]


def _kernel(radius: int, channels: int) -> NDArray[np.float32]:
    side = 2 * radius + 1
    kernel = np.zeros((1, channels, side, side), np.float32)
    kernel[0, 0] = 1 / side**2
    return kernel


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **attributes)


def _constant(name: str, values: NDArray[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def _value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
