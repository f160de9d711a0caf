"""Engines: the libraries that run a network, behind one small interface.

Every engine takes the ONNX file as bytes, never as a path, so a file cannot pull in others from the disk. All of them
take ``image`` [N,C,H,W], ``mean`` and ``std`` [N,C] and return one float32 array per output of the graph.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellfleet.errors import EngineError
from cellfleet.runtime.signal_stack import kept_signal_stack

Floats = NDArray[np.float32]

_GPU_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")


class Engine(Protocol):
    """A network that is loaded and ready.

    Attributes:
        name: ``onnxruntime``, ``openvino`` or ``tensorrt``.
        version: the version of the library; it is part of the run digest.
    """

    name: str
    version: str

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        """Run the network once.

        Args:
            image: float32 [N,C,H,W], raw pixel values; any N, H, W.
            mean: float32 [N,C], mean of each channel over the whole frame.
            std: float32 [N,C], standard deviation of each channel over the whole frame.

        Returns:
            Output name -> float32 [N,c,H,W].

        Raises:
            EngineError: the library failed.
        """
        ...


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU: all graph optimisations, deterministic, no threads that spin while they wait."""

    name = "onnxruntime"

    def __init__(self, onnx: bytes, threads: int = 0) -> None:
        """Load a network.

        Args:
            onnx: the ONNX file.
            threads: CPU threads; 0 means all cores this process may use.

        Raises:
            EngineError: the file is not a network that ONNX Runtime can run.
        """
        ort = _import_onnxruntime()
        self.version: str = ort.__version__
        self._session = _ort_session(ort, onnx, threads, ["CPUExecutionProvider"], self.name)

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        return _ort_run(self._session, image, mean, std, self.name)


class TensorRtEngine:
    """TensorRT, or CUDA where TensorRT is absent, through ONNX Runtime's execution providers; fp32 without TF32."""

    name = "tensorrt"

    def __init__(self, onnx: bytes, threads: int = 0) -> None:
        """Load a network on the first NVIDIA GPU.

        Raises:
            EngineError: this ONNX Runtime has no GPU provider, or the GPU's libraries do not load.
        """
        ort = _import_onnxruntime()
        wanted = [p for p in _GPU_PROVIDERS if p in ort.get_available_providers()]
        if not wanted:
            raise EngineError(
                f"the engine tensorrt needs an ONNX Runtime for NVIDIA GPUs; the installed one ({ort.__version__}) has none",
                hint="on a machine with an NVIDIA GPU: pip uninstall onnxruntime, then pip install onnxruntime-gpu",
            )
        quantised = b"QuantizeLinear" in onnx
        options: dict[str, dict[str, str]] = {
            "TensorrtExecutionProvider": {"trt_fp16_enable": "0", "trt_int8_enable": "1" if quantised else "0"},
            "CUDAExecutionProvider": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
        }
        self._session = _ort_session(ort, onnx, threads, [(p, options[p]) for p in wanted], self.name)
        active = self._session.get_providers()[0]
        if active not in _GPU_PROVIDERS:
            raise EngineError(
                "the GPU provider of ONNX Runtime did not load, so the network would run on the CPU",
                hint="install the CUDA and TensorRT libraries that this onnxruntime-gpu needs",
            )
        self.version = f"{ort.__version__}+{active.removesuffix('ExecutionProvider').lower()}"

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        return _ort_run(self._session, image, mean, std, self.name)


class OpenVinoEngine:
    """OpenVINO on the CPU, in float32: its own default is bfloat16 where the CPU has it, which changes masks."""

    name = "openvino"

    def __init__(self, onnx: bytes, threads: int = 0) -> None:
        """Load a network.

        Raises:
            EngineError: OpenVINO is not installed, or cannot run this file.
        """
        try:
            import openvino as ov
        except ImportError as e:
            raise EngineError(
                "the engine openvino is not installed",
                hint="pip install 'cellfleet[openvino]', or choose another variant",
            ) from e
        self.version: str = ov.__version__.partition("-")[0]
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": _threads(threads),
        }
        try:
            with kept_signal_stack():
                core = ov.Core()
                compiled = core.compile_model(core.read_model(io.BytesIO(onnx)), "CPU", settings)
                self._outputs = [(port.get_any_name(), port) for port in compiled.outputs]
                self._request = compiled.create_infer_request()
        except RuntimeError as e:
            raise _engine_error(self.name, "load the network", e) from e

    def run(self, image: Floats, mean: Floats, std: Floats) -> dict[str, Floats]:
        try:
            result = self._request.infer(
                {"image": np.ascontiguousarray(image), "mean": mean, "std": std}, share_inputs=True, share_outputs=False
            )
        except RuntimeError as e:
            raise _engine_error(self.name, "run the network", e) from e
        return {name: result[port] for name, port in self._outputs}


_ENGINES: dict[str, Callable[[bytes, int], Engine]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
    "tensorrt": TensorRtEngine,
}


def make_engine(variant_engine: str, onnx: bytes, threads: int = 0) -> Engine:
    """Load a network into an engine.

    Args:
        variant_engine: ``onnxruntime``, ``openvino`` or ``tensorrt``.
        onnx: the ONNX file.
        threads: CPU threads; 0 means all cores this process may use.

    Returns:
        The engine; it takes ``image``, ``mean``, ``std`` and gives one array per head.

    Raises:
        EngineError: unknown engine, engine not installed, or a file that it cannot run.
    """
    if variant_engine not in _ENGINES:
        raise EngineError(f"unknown engine {variant_engine!r}", hint=f"known engines: {', '.join(sorted(_ENGINES))}")
    return _ENGINES[variant_engine](onnx, threads)


def _threads(threads: int) -> int:
    if threads > 0:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as e:
        raise EngineError("the engine onnxruntime is not installed", hint="pip install onnxruntime") from e
    return onnxruntime


def _ort_session(ort: Any, onnx: bytes, threads: int, providers: list[Any], name: str) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = _threads(threads)
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(onnx, options, providers=providers)
    except Exception as e:  # the library's errors share no base but Exception
        raise _engine_error(name, "load the network", e) from e


def _ort_run(session: Any, image: Floats, mean: Floats, std: Floats, name: str) -> dict[str, Floats]:
    names = [o.name for o in session.get_outputs()]
    try:
        values = session.run(names, {"image": np.ascontiguousarray(image), "mean": mean, "std": std})
    except Exception as e:  # the library's errors share no base but Exception
        raise _engine_error(name, "run the network", e) from e
    return dict(zip(names, values, strict=True))


def _engine_error(name: str, action: str, cause: Exception) -> EngineError:
    reason = str(cause).strip().splitlines()
    return EngineError(
        f"{name} cannot {action}: {reason[-1].strip() if reason else type(cause).__name__}",
        hint="run `cellfleet bundle verify` on the bundle, or choose another variant with --variant",
    )
