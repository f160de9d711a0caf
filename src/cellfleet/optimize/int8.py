"""The INT8 network: static quantisation in QDQ form, u8 activations, s8 weights per channel and of reduced range.

What stays fp32: everything before the first convolutions (normalisation and padding), the last convolutions and what
follows them (the heads), and the nodes that the user names. Activations are unsigned since signed ones are wrong in
OpenVINO after a Concat, and slower than fp32 in ONNX Runtime; weights have seven bits so that older CPUs do not saturate.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from cellfleet._version import __version__
from cellfleet.errors import ConfigError, OptimizeError

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_QUANTISED = frozenset({*_CONVOLUTIONS, "Add", "AveragePool", "Concat", "MaxPool", "Mul", "Relu", "Resize"})


def to_int8(fp32: bytes, reader: Any, *, method: str, keep_fp32: Sequence[str] = ()) -> bytes:
    """Quantise a network; the same bytes for the same network and frames, in every folder.

    Args:
        fp32: the network as ONNX bytes.
        reader: calibration data, see ``calibration.FrameReader``.
        method: how ranges are chosen: ``minmax``, ``entropy`` or ``percentile``.
        keep_fp32: nodes stay fp32 when one of these is a part of their name or of a name of their weights.

    Raises:
        ConfigError: a part in ``keep_fp32`` fits nothing.
        OptimizeError: no convolution is left to quantise.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    original = onnx.load_from_string(fp32)
    with tempfile.TemporaryDirectory(prefix="cellfleet-int8-") as temporary, _quiet():
        source, prepared, target = (Path(temporary) / f"{name}.onnx" for name in ("fp32", "prepared", "int8"))
        source.write_bytes(fp32)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        network = onnx.load(prepared)
        _name_nodes(network.graph)
        onnx.save(network, prepared)
        quantize_static(
            str(prepared),
            str(target),
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(_QUANTISED),
            nodes_to_quantize=nodes_to_quantise(network.graph, keep_fp32),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[method],
            # One frame at a time: ranges are merged, so memory does not grow with the number of frames.
            extra_options={"CalibStridedMinMax": 1, "CalibTensorRangeSymmetric": False},
        )
        return _stripped(onnx.load(target), original)


def nodes_to_quantise(graph: onnx.GraphProto, keep_fp32: Sequence[str]) -> list[str]:
    """Names of the nodes between normalisation and heads that are worth quantising.

    Raises:
        ConfigError: a part in ``keep_fp32`` fits nothing.
        OptimizeError: no convolution is among them.
    """
    weights = {t.name for t in graph.initializer}
    names = [(node.name, *(x for x in node.input if x in weights)) for node in graph.node]
    for part in keep_fp32:
        if not any(part in name for group in names for name in group):
            some = ", ".join(n.name for n in graph.node if n.op_type in _CONVOLUTIONS)
            raise ConfigError(
                f"optimize.keep_fp32 has {part!r}, which is part of no node's name and of no weight's",
                hint=f"the convolutions are: {some or 'none'}",
            )
    kept = {i for i, group in enumerate(names) if any(part in name for part in keep_fp32 for name in group)}
    body = _after_first_convolutions(graph) - _heads(graph) - kept
    chosen = [node.name for i, node in enumerate(graph.node) if i in body and node.op_type in _QUANTISED]
    if not any(node.op_type in _CONVOLUTIONS for i, node in enumerate(graph.node) if i in body):
        raise OptimizeError(
            "the network has no convolution to quantise between normalisation and heads",
            hint="check optimize.keep_fp32, or set optimize.int8 = false",
        )
    return chosen


def _after_first_convolutions(graph: onnx.GraphProto) -> set[int]:
    """Positions of the convolutions and of all nodes that depend on one."""
    reached: set[str] = set()
    found = set()
    for i, node in enumerate(graph.node):
        if node.op_type in _CONVOLUTIONS or any(name in reached for name in node.input):
            reached.update(node.output)
            found.add(i)
    return found


def _heads(graph: onnx.GraphProto) -> set[int]:
    """Positions of the nodes from each output back to the convolution that it comes from, that one included."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output}
    pending = [o.name for o in graph.output]
    found: set[int] = set()
    while pending:
        i = maker.get(pending.pop())
        if i is None or i in found:
            continue
        found.add(i)
        if graph.node[i].op_type not in _CONVOLUTIONS:
            pending.extend(graph.node[i].input)
    return found


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Every node gets a name of its own: the quantiser chooses nodes by name."""
    taken: set[str] = set()
    for i, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{i}"
        taken.add(node.name)


def _stripped(model: onnx.ModelProto, original: onnx.ModelProto) -> bytes:
    """Drop what names folders and tools; put nodes and tensors in one order, whatever order the quantiser chose."""
    graph = model.graph
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name, model.producer_version = "cellfleet", __version__
    graph.name, graph.doc_string = original.graph.name, ""
    for values in (graph.metadata_props, graph.value_info, graph.quantization_annotation):
        del values[:]
    for item in (*graph.node, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for kept, wanted in ((graph.input, original.graph.input), (graph.output, original.graph.output)):
        del kept[:]
        kept.extend(wanted)
    nodes, tensors = _ordered(graph.node), sorted(graph.initializer, key=lambda t: t.name)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    domains = {node.domain for node in nodes}
    imports = [o for o in model.opset_import if o.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _ordered(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes so that each follows those it depends on; of several that could come next, the first by output name."""
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{maker[name] for name in node.input if name in maker} for node in nodes]
    followers: dict[int, list[int]] = {}
    for i, before in enumerate(needs):
        for j in before:
            followers.setdefault(j, []).append(i)
    ready = [(nodes[i].output[0], i) for i, before in enumerate(needs) if not before]
    heapq.heapify(ready)
    out = []
    while ready:
        _, i = heapq.heappop(ready)
        out.append(nodes[i])
        for j in followers.get(i, ()):
            needs[j].discard(i)
            if not needs[j]:
                heapq.heappush(ready, (nodes[j].output[0], j))
    return out


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser prints and warns a lot."""
    logger = logging.getLogger("onnxruntime")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
