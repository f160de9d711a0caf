"""The INT8 form of the very network that training exports, on real frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cellfleet.bundle import check_onnx
from cellfleet.config.model import DataSection
from cellfleet.data import DataSetVersion, freeze
from cellfleet.optimize.calibration import FrameReader, choose_frames, network_inputs
from cellfleet.optimize.int8 import to_int8
from cellfleet.ports import silent
from cellfleet.runtime.engines import make_engine
from cellfleet.train.exporting.export import to_onnx
from cellfleet.train.networks import DEFAULT_HEADS, HeadedUNet
from support_onnx import tiny_spec


@pytest.fixture(scope="module")
def fp32() -> bytes:
    torch.manual_seed(0)
    return to_onnx(HeadedUNet(1, (8, 16, 32), 1, DEFAULT_HEADS).eval(), 1)


@pytest.fixture(scope="module")
def version(shared_data: Path) -> DataSetVersion:
    source = str(shared_data / "usiigaci_phase")
    return freeze(DataSection(source=source), shared_data)


def test_quantised_on_real_frames_it_gives_the_same_maps(fp32: bytes, version: DataSetVersion) -> None:
    spec = tiny_spec()
    frames = choose_frames(version, 2)
    int8 = to_int8(fp32, FrameReader(spec, version, frames, silent, 2), method="minmax")
    check_onnx(int8, spec)
    assert len(int8) < len(fp32)
    model = onnx.load_from_string(int8)
    made = {o: n.op_type for n in model.graph.node for o in n.output}
    for node in model.graph.node:  # normalisation, padding and cropping are as they were
        if node.op_type in ("Sub", "Div", "Gather", "Clip", "Split", "Sigmoid", "Slice"):
            assert "DequantizeLinear" not in {made.get(i) for i in node.input}, node.name
    convolutions = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    plain = [n.name for n in convolutions if made.get(n.input[1]) != "DequantizeLinear"]
    assert plain == [convolutions[-1].name]  # the heads
    whole = network_inputs(spec, version.load_frame(version.split("validation")[0]))
    image = whole["image"][:, :, :101, :77]  # an odd size
    wanted = make_engine("onnxruntime", fp32).run(image, whole["mean"], whole["std"])
    for engine in ("onnxruntime", "openvino"):
        found = make_engine(engine, int8).run(image, whole["mean"], whole["std"])
        for head in spec.heads:
            assert found[head.name].shape == (1, 1, 101, 77)
            agreement = np.corrcoef(found[head.name].ravel(), wanted[head.name].ravel())[0, 1]
            assert agreement > 0.95, (engine, head.name)
