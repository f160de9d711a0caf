"""What watching costs: features of the image and statistics of the output against the segmentation of the same frame.

Run with: python benchmarks/bench_monitor.py [BUNDLE OR MODEL FOLDER] [--side 512 1024] [--threads 1] [--rounds 15]

Without a model the default U-Net with random weights draws; it is as fast as a trained one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cellfleet.bundle import ModelFolder, ModelSpec, open_bundle
from cellfleet.bundle.spec import Head
from cellfleet.config.model import SegmentSection
from cellfleet.data import Frame
from cellfleet.data.synthetic import SceneParams, simulate
from cellfleet.monitor import image_features, output_features, watch_image
from cellfleet.monitor.air_bubbles import find_bubbles
from cellfleet.ports import SystemClock
from cellfleet.runtime import Segmenter, load_segmenter, make_engine
from cellfleet.runtime.choose import cpu_model


def segmenter_of(path: Path | None, threads: int) -> Segmenter:
    """The model that draws."""
    if path is not None:
        source = ModelFolder.load(path) if path.is_dir() else open_bundle(path)
        return load_segmenter(source, None, SegmentSection(threads=threads))
    from cellfleet.config.model import TrainingSection
    from cellfleet.train.exporting.export import to_onnx
    from cellfleet.train.networks import DEFAULT_HEADS, HeadedUNet

    section = TrainingSection()
    network = HeadedUNet(1, section.features, section.residual_units, DEFAULT_HEADS).eval()
    heads = (Head(name="foreground", kind="foreground"), Head(name="distance", kind="distance"))
    spec = ModelSpec(name="random", version="0.0.0", channels=("phase",), heads=heads, stride=8, halo_px=64)
    return Segmenter(spec, make_engine("onnxruntime", to_onnx(network, 1), threads))


def median_ms(work: Callable[[], object], rounds: int) -> float:
    """Median time of some rounds, after one that warms up."""
    clock, times = SystemClock(), []
    for _ in range(rounds + 1):
        start = clock.monotonic_s()
        work()
        times.append(1e3 * (clock.monotonic_s() - start))
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the monitor against a segmentation.")
    parser.add_argument("model", nargs="?", type=Path, help="bundle or model folder (default: random weights)")
    parser.add_argument(
        "--side", nargs="+", type=int, default=[512, 1024], help="sides of the square frames, in pixels"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the network (0: all cores)")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    segmenter = segmenter_of(args.model, args.threads)
    print(f"{cpu_model()}, {args.threads or 'all'} threads for the network")
    for side in args.side:
        plane = next(iter(simulate(SceneParams(height_px=side, width_px=side), 1, 0))).pixels
        frame = Frame(plane[None], segmenter.spec.channels, segmenter.spec.target_pixel_size_um)
        found = segmenter.segment(frame)
        maps = segmenter.maps(frame).foreground
        foreground = maps if maps is not None else np.zeros_like(plane, np.uint16)
        whole = median_ms(lambda frame=frame: segmenter.segment(frame), args.rounds)  # type: ignore[misc]
        parts = {
            "image features": median_ms(lambda plane=plane: image_features(plane), args.rounds),  # type: ignore[misc]
            "bubbles": median_ms(lambda plane=plane: find_bubbles(plane), args.rounds),  # type: ignore[misc]
            "all of the image": median_ms(lambda plane=plane: watch_image(plane, "phase"), args.rounds),  # type: ignore[misc]
            "output": median_ms(
                lambda table=found.table, foreground=foreground: output_features(table, foreground),  # type: ignore[misc]
                args.rounds,
            ),
        }
        print(f"{side} x {side}: segmentation {whole:.1f} ms")
        for name, ms in parts.items():
            print(f"  {name:18}{ms:8.2f} ms   {100 * ms / whole:5.1f} % of it")


if __name__ == "__main__":
    main()
