"""What an ONNX file in a bundle may contain: plain arithmetic on its inputs, nothing else.

Source: the ONNX intermediate representation (github.com/onnx/onnx, docs/IR.md) and its external data (docs/ExternalData.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from google.protobuf.message import DecodeError

from cellfleet.bundle.refusals import HostileModel, TooLarge
from cellfleet.bundle.spec import Head, ModelSpec

MAX_BYTES = 500_000_000
MAX_NODES = 20_000
MAX_TENSOR_VALUES = 200_000_000

ALLOWED_OPS = frozenset(
    """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose
    DequantizeLinear Div Dropout Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization
    LayerNormalization LeakyRelu Less LessOrEqual Log MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow
    QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare
    Relu Reshape Resize Round Shape Sigmoid Sign Size Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile
    Transpose Trilu Unsqueeze Upsample Where
    """.split()
)
_DOMAINS = ("", "ai.onnx")
_Values = list[tuple[str, tuple[int | None, ...]]]
_FLOAT = onnx.TensorProto.FLOAT


def check_onnx(data: bytes, spec: ModelSpec | None = None, *, portable: bool = False) -> None:
    """Refuse an ONNX file that is not a plain, self-contained network.

    Args:
        data: the file.
        spec: the model that it belongs to; its inputs and outputs are then compared with the graph contract.
        portable: the file is the single-input form.

    Raises:
        HostileModel: not ONNX, external data, foreign operators, functions or subgraphs, other inputs or outputs.
        TooLarge: above the limits.
    """
    if len(data) > MAX_BYTES:
        raise TooLarge(f"an ONNX file of {len(data):,} bytes, more than {MAX_BYTES:,}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as e:
        raise HostileModel(f"a model file is not ONNX: {e}") from e
    if not model.graph.node:
        raise HostileModel("a model file holds no network")
    if model.functions or model.training_info:
        raise HostileModel("a model file brings functions or training code of its own")
    foreign = sorted({o.domain for o in model.opset_import if o.domain not in _DOMAINS})
    if foreign:
        raise HostileModel(f"a model file uses operators of {', '.join(foreign)}; only standard ONNX is allowed")
    _check_nodes(model.graph.node)
    _check_tensors(model.graph)
    if spec is not None:
        _check_interface(model.graph, spec, portable)


def _check_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for number, node in enumerate(nodes):
        if number >= MAX_NODES:
            raise TooLarge(f"a network of more than {MAX_NODES:,} operators")
        if node.domain not in _DOMAINS or node.op_type not in ALLOWED_OPS:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise HostileModel(f"a model file uses the operator {name}, which bundles may not use")
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise HostileModel(f"the operator {node.op_type} of a model file holds a graph of its own")
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                _check_tensor(tensor)
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise HostileModel("a model file holds sparse tensors, which bundles do not use")


def _check_tensors(graph: onnx.GraphProto) -> None:
    if graph.sparse_initializer:
        raise HostileModel("a model file holds sparse tensors, which bundles do not use")
    for tensor in graph.initializer:
        _check_tensor(tensor)


def _check_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise HostileModel(f"the tensor {tensor.name!r} of a model file lies in another file")
    values = 1
    for dim in tensor.dims:
        if dim < 0:
            raise HostileModel(f"the tensor {tensor.name!r} of a model file has the shape {list(tensor.dims)}")
        values *= dim
    if values > MAX_TENSOR_VALUES:
        raise TooLarge(f"the tensor {tensor.name!r} of a model file has {values:,} values")


def _check_interface(graph: onnx.GraphProto, spec: ModelSpec, portable: bool) -> None:
    constants = {t.name for t in graph.initializer}
    inputs = [(i.name, _shape(i)) for i in graph.input if i.name not in constants]
    count = len(spec.channels)
    wanted: _Values = [("image", (None, count, None, None))]
    if not portable:
        wanted += [("mean", (None, count)), ("std", (None, count))]
    _compare("inputs", inputs, wanted)
    _compare("outputs", [(o.name, _shape(o)) for o in graph.output], [(h.name, _head_shape(h)) for h in spec.heads])


def _head_shape(head: Head) -> tuple[int | None, ...]:
    return (None, head.channels, None, None)


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    kind = value.type.tensor_type
    if kind.elem_type != _FLOAT:
        raise HostileModel(f"{value.name!r} of a model file is not float32")
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)


def _compare(what: str, found: _Values, wanted: _Values) -> None:
    if found != wanted:
        raise HostileModel(
            f"the {what} of a model file are {_listed(found)}; the description promises {_listed(wanted)}"
        )


def _listed(values: _Values) -> str:
    return ", ".join(f"{n} [{', '.join('?' if d is None else str(d) for d in s)}]" for n, s in values) or "none"
