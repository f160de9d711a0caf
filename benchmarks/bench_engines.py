"""The network alone: fp32 against INT8, ONNX Runtime against OpenVINO, round after round in one run; prints ms and ratios.

Run with: python benchmarks/bench_engines.py [MODEL FOLDER] [--side 512 1024] [--threads 0] [--rounds 9]

Without a model folder the default U-Net with random weights is used; it is as fast as a trained one. A model folder
without an INT8 file gets one for the benchmark, calibrated on noise, which says nothing about its quality.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

from cellfleet.bundle import ModelFolder
from cellfleet.errors import EngineError
from cellfleet.optimize.calibration import Inputs
from cellfleet.optimize.int8 import to_int8
from cellfleet.ports import SystemClock
from cellfleet.runtime.choose import cpu_model, probe_times
from cellfleet.runtime.engines import Engine, make_engine


class Noise:
    """A calibration reader of a few noisy images."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._left = 0

    def __len__(self) -> int:
        return 4

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give so many images next."""
        self._left = end_index - start_index

    def get_next(self) -> Inputs | None:
        """The next image, None after the last."""
        if self._left == 0:
            return None
        self._left -= 1
        shape = (1, self._channels, 128, 128)
        image = np.random.default_rng(self._left).normal(128, 40, shape).astype(np.float32)
        return {"image": image, "mean": image.mean((2, 3)), "std": image.std((2, 3))}


def networks(folder: Path | None) -> tuple[dict[str, bytes], int, str]:
    """The ONNX files by precision, the number of channels, and what they are."""
    if folder is not None:
        model = ModelFolder.load(folder)
        channels = len(model.spec.channels)
        files: dict[str, bytes] = {v.precision: model.read(v.file, v.sha256) for v in model.variants}
        title = f"{model.spec.name} {model.spec.version}"
    else:
        from cellfleet.config.model import TrainingSection
        from cellfleet.train.exporting.export import to_onnx
        from cellfleet.train.networks import DEFAULT_HEADS, HeadedUNet

        section, channels = TrainingSection(), 1
        network = HeadedUNet(channels, section.features, section.residual_units, DEFAULT_HEADS).eval()
        files = {"fp32": to_onnx(network, channels)}
        title = f"the default U-Net {section.features} with random weights"
    if "int8" not in files:
        files["int8"] = to_int8(files["fp32"], Noise(channels), method="minmax")
    return files, channels, title


def engines_of(files: dict[str, bytes], threads: int) -> dict[str, Engine]:
    """Every engine that runs here with every file."""
    out: dict[str, Engine] = {}
    for name in ("onnxruntime", "openvino"):
        for precision in ("fp32", "int8"):
            try:
                out[f"{name}/{precision}"] = make_engine(name, files[precision], threads)
            except EngineError as e:
                print(f"{name}/{precision}: {e.message}")
    return out


def main() -> None:
    """Measure and print a table for each size."""
    parser = argparse.ArgumentParser(description="Time the network in every engine and precision.")
    parser.add_argument("folder", nargs="?", type=Path, help="model folder (default: random weights)")
    parser.add_argument(
        "--side", nargs="+", type=int, default=[512, 1024], help="sides of the square frames, in pixels"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all cores)")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    files, channels, title = networks(args.folder)
    sizes = ", ".join(f"{name} {len(data) / 1e6:.2f} MB" for name, data in files.items())
    print(f"{title}: {sizes}; {cpu_model()}, {args.threads or 'all'} threads")
    engines = engines_of(files, args.threads)
    for side in args.side:
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(args.rounds + 1):
            for name, engine in engines.items():
                times[name] += probe_times(engine, channels, SystemClock(), side_px=side)
        medians = {name: statistics.median(t[1:]) for name, t in times.items()}
        print(f"{side} x {side}")
        for name, ms in medians.items():
            print(f"  {name:18}{ms:8.1f} ms   {medians['onnxruntime/fp32'] / ms:.2f} times as fast as onnxruntime/fp32")


if __name__ == "__main__":
    main()
