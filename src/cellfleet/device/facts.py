"""What an instrument can say of its host."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from cellfleet._version import __version__
from cellfleet.wire.enrol import DeviceFacts


def engines() -> dict[str, str]:
    """Engines that are installed here -> version."""
    out = {}
    for engine, package in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        try:
            out[engine] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "onnxruntime" not in out:
        return out
    import onnxruntime

    if {"TensorrtExecutionProvider", "CUDAExecutionProvider"} & set(onnxruntime.get_available_providers()):
        out["tensorrt"] = out["onnxruntime"]
    return out


def device_facts() -> DeviceFacts:
    """Everything that a server wants to know of the host."""
    import psutil

    from cellfleet.runtime.choose import cpu_model

    return DeviceFacts(
        cellfleet_version=__version__,
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        memory_mb=round(psutil.virtual_memory().total / 1e6, 1),
        engines=engines(),
    )
