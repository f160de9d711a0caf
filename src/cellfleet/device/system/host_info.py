"""Facts about the host of an instrument."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path

from cellfleet._version import __version__
from cellfleet.wire.enrol import DeviceFacts


def engines() -> dict[str, str]:
    """Installed engines -> version, without loading them."""
    out = {}
    for engine, packages in (("onnxruntime", ("onnxruntime", "onnxruntime-gpu")), ("openvino", ("openvino",))):
        for package in packages:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                out[engine] = importlib.metadata.version(package)
    if "onnxruntime" in out and _has_gpu_providers():
        out["tensorrt"] = out["onnxruntime"]
    return out


def _has_gpu_providers() -> bool:
    found = importlib.util.find_spec("onnxruntime")
    folders = found.submodule_search_locations if found is not None else None
    names = ("*onnxruntime_providers_tensorrt*", "*onnxruntime_providers_cuda*")
    return any(any((Path(f) / "capi").glob(name)) for f in folders or () for name in names)


def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs, as reported by the driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    argv = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip()[:200] for line in found.stdout.splitlines() if line.strip())[:32]


def device_facts() -> DeviceFacts:
    """Facts about the host for the server."""
    import psutil

    from cellfleet.runtime.choose import cpu_model

    return DeviceFacts(
        cellfleet_version=__version__,
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        memory_mb=round(psutil.virtual_memory().total / 1e6, 1),
        gpus=gpus(),
        engines=engines(),
    )
