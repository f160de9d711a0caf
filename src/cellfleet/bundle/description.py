"""bioimageio.yaml: the same model as napari, Fiji and the model zoo read it (BioImage.IO model description 0.5).

Such programs run ``portable.onnx``, which takes raw pixels and computes the moments itself; our runtime never uses it.
Source: bioimage-io/spec-bioimage-io, model description 0.5.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable
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
        "name": f"{spec.name.replace('.', '-')} (cellfleet)",
        "description": card.description or f"Instance segmentation of cells in {', '.join(spec.channels)} images",
        "version": _pep440(spec.version),
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
        "outputs": [
            _output(head, name, spec, files)
            for head, name in zip(spec.heads, identifiers(h.name for h in spec.heads), strict=True)
        ],
        "weights": {"onnx": {"source": "portable.onnx", "sha256": sha256_hex(portable), "opset_version": 18}},
    }


def _input(spec: ModelSpec, files: dict[str, bytes]) -> dict[str, Any]:
    space: dict[str, Any] = {"type": "space", "size": {"min": 1, "step": 1}, **_scale(spec)}
    return {
        "id": "image",
        "description": "raw pixel values; moments, padding and cropping are inside the network",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": identifiers(spec.channels)},
            {**space, "id": "y"},
            {**space, "id": "x"},
        ],
        "data": {"type": "float32"},
        "test_tensor": _file("test-image.npy", files),
    }


def _output(head: Head, identifier: str, spec: ModelSpec, files: dict[str, bytes]) -> dict[str, Any]:
    names = identifiers(head.classes) or ["probability" if head.kind == "foreground" else "distance"]
    return {
        "id": identifier,
        "description": {
            "foreground": "probability that a pixel belongs to a cell",
            "distance": "distance to the cell's edge divided by the greatest such distance in the cell",
            "classes": "probability of each class",
        }[head.kind],
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": names},
            {"type": "space", "id": "y", "size": {"tensor_id": "image", "axis_id": "y"}, **_scale(spec)},
            {"type": "space", "id": "x", "size": {"tensor_id": "image", "axis_id": "x"}, **_scale(spec)},
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": _file(f"test-{head.name}.npy", files),
    }


def _scale(spec: ModelSpec) -> dict[str, Any]:
    """The pixel size of the grid; inputs and outputs must name the same, or a reader would resize one of them."""
    if spec.target_pixel_size_um is None:
        return {}
    return {"scale": spec.target_pixel_size_um, "unit": "micrometer"}


def _pep440(version: str) -> str:
    """A SemVer version as a Python version, which the description demands; one before a release stays before it."""
    release, _, pre = version.partition("-")
    label = re.sub("[^0-9a-z]+", ".", pre.lower()).strip(".")
    return release + (".dev0" if pre else "") + (f"+{label}" if label else "")


def identifiers(names: Iterable[str]) -> list[str]:
    """Names as the description demands them: lower-case Python identifiers, all different."""
    out: list[str] = []
    for name in names:
        text = re.sub("[^0-9a-z]", "_", name.lower())
        text = text if text.isidentifier() and not keyword.iskeyword(text) else f"c_{text}"
        while text in out:
            text += "_"
        out.append(text)
    return out


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
