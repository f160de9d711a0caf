"""Hostile ONNX files, made by changing a good one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cellfleet.bundle import check_onnx, open_bundle
from cellfleet.bundle import onnx_policy as policy
from cellfleet.bundle.refusals import BundleRefused, HostileModel, TooLarge
from support_bundle import described, repacked
from support_onnx import FP32, tiny_onnx, tiny_spec

SPEC = tiny_spec()
GOOD = tiny_onnx()


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """The good network with a change."""
    model = onnx.load_from_string(GOOD)
    change(model)
    return bytes(model.SerializeToString())


def branch() -> onnx.GraphProto:
    """A graph of its own, for If and Loop."""
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Identity", ["image"], ["y"])], "branch", [], [out])


def add_node(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    model.graph.node.insert(0, node)


def add_external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def add_external_keys_only(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def add_external_in_constant(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "c")
    tensor.data_location = TensorProto.EXTERNAL
    add_node(model, helper.make_node("Constant", [], ["c"], value=tensor))


def add_function(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], body, opset))


def add_sparse(model: onnx.ModelProto) -> None:
    values, places = helper.make_tensor("s", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [10]))


def rename(values: str, new: str) -> Callable[[onnx.ModelProto], object]:
    return lambda m: setattr(getattr(m.graph, values)[0], "name", new)


def test_the_good_ones_pass() -> None:
    check_onnx(GOOD)
    check_onnx(GOOD, SPEC)
    check_onnx(tiny_onnx(portable=True), SPEC, portable=True)
    check_onnx(tiny_onnx(3), tiny_spec(channels=("a", "b", "c")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add_external, "lies in another file"),
        (add_external_keys_only, "lies in another file"),
        (add_external_in_constant, "lies in another file"),
        (add_function, "functions"),
        (lambda m: m.training_info.add(), "training code"),
        (add_sparse, "sparse"),
        (lambda m: m.opset_import.append(helper.make_opsetid("com.evil", 1)), "com.evil"),
        (lambda m: add_node(m, helper.make_node("Shell", ["image"], ["z"], domain="com.evil")), "com.evil.Shell"),
        (lambda m: add_node(m, helper.make_node("Shell", ["image"], ["z"])), "Shell"),
        (lambda m: add_node(m, helper.make_node("PyOp", ["image"], ["z"])), "PyOp"),
        (
            lambda m: add_node(m, helper.make_node("If", ["image"], ["z"], then_branch=branch(), else_branch=branch())),
            "If",
        ),
        (lambda m: add_node(m, helper.make_node("Loop", ["image"], ["z"], body=branch())), "Loop"),
        (lambda m: add_node(m, helper.make_node("Scan", ["image"], ["z"], body=branch())), "Scan"),
        (lambda m: add_node(m, helper.make_node("Relu", ["image"], ["z"], body=branch())), "a graph of its own"),
        (lambda m: add_node(m, helper.make_node("Relu", ["image"], ["z"], body=[branch()])), "a graph of its own"),
        (lambda m: m.graph.ClearField("node"), "no network"),
        (lambda m: m.graph.initializer[0].dims.append(-1), "shape"),
        (rename("input", "picture"), "picture"),
        (rename("output", "mask"), "mask"),
        (lambda m: m.graph.input.append(m.graph.input[1]), "inputs"),
        (lambda m: m.graph.output.append(m.graph.output[1]), "outputs"),
        (lambda m: m.graph.output.pop(), "outputs"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.UINT8), "not float32"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 64), "64"),
        (lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 2), "2"),
    ],
)
def test_hostile_networks(change: Callable[[onnx.ModelProto], object], said: str) -> None:
    with pytest.raises(HostileModel, match=said):
        check_onnx(changed(change), SPEC)


def test_the_single_input_form_is_not_the_contract_and_the_other_way_round() -> None:
    with pytest.raises(HostileModel, match="inputs"):
        check_onnx(GOOD, SPEC, portable=True)
    with pytest.raises(HostileModel, match="inputs"):
        check_onnx(tiny_onnx(portable=True), SPEC)
    with pytest.raises(HostileModel, match="inputs"):
        check_onnx(GOOD, tiny_spec(channels=("a", "b")))


def test_huge_tensors_by_their_shape_alone() -> None:
    with pytest.raises(TooLarge, match="values"):
        check_onnx(changed(lambda m: m.graph.initializer[0].dims.extend([2**40, 2**40])))


def test_too_many_operators() -> None:
    def many(model: onnx.ModelProto) -> None:
        relu = helper.make_node("Relu", ["image"], ["z"])
        model.graph.node.extend([relu] * (policy.MAX_NODES + 1))

    with pytest.raises(TooLarge, match="operators"):
        check_onnx(changed(many))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 100, b"PK\x03\x04" + b"\xff" * 50, GOOD[: len(GOOD) // 2]])
def test_no_onnx_at_all(data: bytes) -> None:
    with pytest.raises(HostileModel):
        check_onnx(data)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, len(GOOD) - 1), some=st.binary(min_size=1, max_size=6))
def test_damage_gives_a_refusal_or_a_network(at: int, some: bytes) -> None:
    raw = GOOD[:at] + some + GOOD[at + len(some) :]
    try:
        check_onnx(raw, SPEC)
    except BundleRefused:
        return
    found = onnx.load_from_string(raw)
    assert [i.name for i in found.graph.input] == ["image", "mean", "std"]


@pytest.mark.parametrize("name", [FP32, "portable.onnx"])
def test_a_bundle_with_a_hostile_network_is_refused(files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    model = onnx.load_from_string(files[name])
    add_external(model)
    evil = described({**files, name: model.SerializeToString()})
    with pytest.raises(HostileModel, match="another file"):
        open_bundle(repacked(evil, tmp_path / "evil.bundle.zip"))
