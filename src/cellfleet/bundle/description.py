"""bioimageio.yaml: the same model as napari, Fiji and the model zoo read it (BioImage.IO model description 0.5).

Such programs run ``portable.onnx``, which takes raw pixels and computes the moments itself; our runtime never uses it.
Source: bioimage-io/spec-bioimage-io, model description 0.5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellfleet.bundle.spec import Head, ModelSpec
from cellfleet.canonical import sha256_hex
from cellfleet.errors import EngineError


@dataclass(frozen=True)
class ModelCard:
    """What people should know of the model.

    Attributes:
        description: one sentence.
        license: SPDX identifier.
        authors: names.
        data: what it was trained on, one sentence.
        limits: what it should not be used for, one sentence each.
    """

    description: str
    license: str
    authors: tuple[str, ...]
    data: str
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TestTensors:
    """An input of the portable network and what it answers; float32 [1,C,H,W]."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    image: NDArray[np.float32]
    outputs: dict[str, NDArray[np.float32]]


def run_portable(portable: bytes, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run portable.onnx alone, as other programs do.

    Args:
        portable: the ONNX file.
        image: float32 [N,C,H,W], raw pixel values.

    Raises:
        EngineError: ONNX Runtime refuses it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(portable, options, providers=["CPUExecutionProvider"])
        values = session.run(None, {"image": image})
    except Exception as e:  # the library's errors share no base but Exception
        raise EngineError(f"portable.onnx cannot be run: {e}", hint="export the model again") from e
    return {o.name: v for o, v in zip(session.get_outputs(), values, strict=True)}


def describe(spec: ModelSpec, card: ModelCard, portable: bytes, files: dict[str, bytes]) -> dict[str, Any]:
    """The description as plain data.

    Args:
        spec: the model.
        card: what people should know of it.
        portable: the bytes of portable.onnx.
        files: the test tensors and the documentation by name (``test-image.npy``, ``test-<head>.npy``, ``README.md``).
    """
    return {
        "type": "model",
        "format_version": "0.5.4",
        "name": f"{spec.name} {spec.version}",
        "description": card.description or f"Instance segmentation of cells in {', '.join(spec.channels)} images",
        "version": spec.version,
        "authors": [{"name": name} for name in card.authors],
        "cite": [
            {
                "text": "U-Net: Convolutional Networks for Biomedical Image Segmentation",
                "doi": "10.1007/978-3-319-24574-4_28",
            }
        ],
        "license": card.license,
        "documentation": "README.md",
        "tags": ["cells", "instance-segmentation", "unet", "onnx", *spec.channels],
        "inputs": [_input(spec, files)],
        "outputs": [_output(head, files) for head in spec.heads],
        "weights": {"onnx": {"source": "portable.onnx", "sha256": sha256_hex(portable), "opset_version": 18}},
    }


def _input(spec: ModelSpec, files: dict[str, bytes]) -> dict[str, Any]:
    space: dict[str, Any] = {"type": "space", "size": {"min": spec.stride, "step": 1}}
    if spec.target_pixel_size_um is not None:
        space |= {"scale": spec.target_pixel_size_um, "unit": "micrometer"}
    return {
        "id": "image",
        "description": "raw pixel values; moments, padding and cropping are inside the network",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": [_channel(c) for c in spec.channels]},
            {**space, "id": "y"},
            {**space, "id": "x"},
        ],
        "data": {"type": "float32"},
        "test_tensor": _file("test-image.npy", files),
    }


def _output(head: Head, files: dict[str, bytes]) -> dict[str, Any]:
    names = [_channel(c) for c in head.classes] or ["probability" if head.kind == "foreground" else "distance"]
    return {
        "id": head.name,
        "description": {
            "foreground": "probability that a pixel belongs to a cell",
            "distance": "distance to the cell's edge divided by the greatest such distance in the cell",
            "classes": "probability of each class",
        }[head.kind],
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": names},
            {"type": "space", "id": "y", "size": {"tensor_id": "image", "axis_id": "y"}},
            {"type": "space", "id": "x", "size": {"tensor_id": "image", "axis_id": "x"}},
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": _file(f"test-{head.name}.npy", files),
    }


def _channel(name: str) -> str:
    text = "".join(c if c.isalnum() else "_" for c in name.lower())
    return text if text[:1].isalpha() else f"c_{text}"


def _file(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    return {"source": name, "sha256": sha256_hex(files[name])}


def yaml_bytes(value: dict[str, Any]) -> bytes:
    """Plain data as YAML; JSON is YAML 1.2, and its form is the same everywhere."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def card_text(spec: ModelSpec, card: ModelCard, lineage_lines: list[str], variants: list[str]) -> str:
    """The model card, Markdown."""
    grid = f"{spec.target_pixel_size_um:g} um per pixel" if spec.target_pixel_size_um else "the pixels as they are"
    limits = [
        f"- {x}"
        for x in (*card.limits, "Not for diagnosis.", "Cells unlike those it was trained on may be missed or merged.")
    ]
    return "\n".join(
        [
            f"# {spec.name} {spec.version}",
            "",
            card.description or f"Instance segmentation of cells in {', '.join(spec.channels)} images.",
            "",
            "## Intended use",
            "",
            f"Finding and outlining cells in {', '.join(spec.channels)} images from live-cell microscopes. The network sees "
            f"frames at {grid}.",
            "",
            "## Training data",
            "",
            card.data,
            "",
            "## Outputs",
            "",
            *(f"- `{h.name}`: {h.kind}" for h in spec.heads),
            "",
            "## Variants",
            "",
            *(f"- {v}" for v in variants),
            "",
            "## Limits",
            "",
            *limits,
            "",
            "## Lineage",
            "",
            *(f"- {line}" for line in lineage_lines),
            "",
            "How well it does is measured after this file is made, and stands in the decision records.",
            "",
            f"Licence: {card.license}. Authors: {', '.join(card.authors)}.",
            "",
        ]
    )
