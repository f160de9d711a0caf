"""Proof that the exported graph computes what the network in PyTorch computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from cellfleet.errors import TrainError
from cellfleet.runtime.objects import frame_moments
from cellfleet.train.networks import HeadedUNet, probabilities, stride_of

TOLERANCE = 1e-4
"""Greatest difference of a probability that is accepted."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """One comparison.

    Attributes:
        case: what was compared.
        contract, portable: greatest absolute difference of the two exported forms to PyTorch.
    """

    case: str
    contract: float
    portable: float


def prove_parity(network: HeadedUNet, contract: bytes, portable: bytes, channels: int) -> tuple[Parity, ...]:
    """Run both graphs with ONNX Runtime and the network with PyTorch on hard cases.

    The reference pads and crops by numpy, outside any graph: odd sizes, 1 x 1, the ranges of uint8 and uint16, constant
    frames, several frames at once.

    Args:
        network: in evaluation mode.
        contract, portable: ONNX bytes.
        channels: number of input channels.

    Raises:
        TrainError: a difference above TOLERANCE.
    """
    sessions = [
        ort.InferenceSession(data, _options(), providers=["CPUExecutionProvider"]) for data in (contract, portable)
    ]
    out = []
    for case, frames in _cases(channels):
        expected = _expected(network, frames)
        moments = [frame_moments(f) for f in frames]
        image = frames.astype(np.float32)
        mean, std = (np.stack(part) for part in zip(*moments, strict=True))
        got = [
            sessions[0].run(None, {"image": image, "mean": mean, "std": std}),
            sessions[1].run(None, {"image": image}),
        ]
        errors = [max(float(np.abs(a - b).max()) for a, b in zip(g, expected, strict=True)) for g in got]
        out.append(Parity(case, *errors))
        if not max(errors) <= TOLERANCE:
            raise TrainError(
                f"the exported network differs from PyTorch by {max(errors):.2g} on {case} (at most {TOLERANCE:g})",
                hint="please report this with the settings in training.json",
            )
    return tuple(out)


def _cases(channels: int) -> list[tuple[str, NDArray[np.uint8] | NDArray[np.uint16]]]:
    rng = np.random.default_rng(0)

    def noise(n: int, h: int, w: int, top: int) -> NDArray[np.uint16]:
        # Smooth blobs and noise, since networks answer little to noise alone.
        y, x = np.mgrid[:h, :w]
        wave = 0.5 + 0.35 * np.sin(y / 5.0 + np.arange(n)[:, None, None, None]) * np.cos(x / 7.0)
        values = (wave + 0.1 * rng.standard_normal((n, channels, h, w))).clip(0, 1) * top
        frames: NDArray[np.uint16] = values.astype(np.uint16)
        return frames

    return [
        ("1 x 1", noise(1, 1, 1, 65535)),
        ("odd size 37 x 61, 8 bit", noise(1, 37, 61, 255).astype(np.uint8)),
        ("odd size 129 x 75, 16 bit", noise(1, 129, 75, 65535)),
        ("a row of 200", noise(1, 1, 200, 4095)),
        ("three frames at once", noise(3, 64, 50, 255).astype(np.uint8)),
        ("constant, black", np.zeros((1, channels, 40, 33), np.uint8)),
        ("constant, 65535", np.full((2, channels, 40, 33), 65535, np.uint16)),
        ("faint, at 60000 of 65535", (60000 + noise(1, 50, 50, 9)).astype(np.uint16)),
    ]


def _expected(network: HeadedUNet, frames: NDArray[np.uint8] | NDArray[np.uint16]) -> list[Floats]:
    stride = stride_of(network.net.channels)
    height, width = frames.shape[2:]
    out: list[list[Floats]] = []
    for frame in frames:
        mean, std = frame_moments(frame)
        x = (frame.astype(np.float32) - mean[:, None, None]) / std[:, None, None]
        x = np.pad(x, ((0, 0), (0, -height % stride), (0, -width % stride)), mode="edge")
        with torch.inference_mode():
            y = probabilities(network.heads, network(torch.from_numpy(x)[None]))
        out.append([p[0, :, :height, :width].numpy() for p in y])
    return [np.stack(maps) for maps in zip(*out, strict=True)]


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return options
