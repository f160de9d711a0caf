"""From a training run to a model folder: ONNX by the graph contract, proved equal to the network in PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from pydantic import ValidationError

from cellfleet._version import __version__
from cellfleet.bundle.folder import PORTABLE, Model, ModelFolder
from cellfleet.bundle.spec import Lineage, ModelSpec, Variant
from cellfleet.canonical import sha256_hex
from cellfleet.config.model import ModelSection
from cellfleet.data import DataSetVersion
from cellfleet.errors import TrainError
from cellfleet.ports import write_atomic
from cellfleet.train.exporting.graph import ContractGraph
from cellfleet.train.exporting.parity import Parity, prove_parity
from cellfleet.train.exporting.portable import portable
from cellfleet.train.exporting.reference import reference_statistics
from cellfleet.train.loop import BEST
from cellfleet.train.networks import HeadedUNet, receptive_radius, stride_of
from cellfleet.train.record import TrainingRun, load_run
from cellfleet.train.state import load_network

OPSET = 18
FP32 = "variants/onnxruntime-fp32.onnx"


@dataclass(frozen=True)
class Exported:
    """What export made: the folder, and how closely ONNX follows PyTorch."""

    folder: ModelFolder
    parity: tuple[Parity, ...]


def export(
    run_dir: Path, out: Path, section: ModelSection, data: DataSetVersion, note: Callable[[str], None] = lambda _: None
) -> Exported:
    """Export a finished training run.

    Args:
        run_dir: folder of the run.
        out: the model folder to write.
        section: name and version of the model.
        data: the data set version that the run was trained on, for reference statistics.
        note: called with what is being done.

    Raises:
        TrainError: the run is not finished, was trained on other data, or ONNX and PyTorch disagree.
        StorageError: the disk refuses.
    """
    run = load_run(run_dir)
    if run.data_set != data.digest:
        raise TrainError(
            f"{run_dir} was trained on the data set version {run.data_set[:12]}, not {data.digest[:12]}",
            hint="name the manifest that it was trained on",
        )
    network = load_network(run_dir / BEST, len(run.channels), run.section, run.heads)
    note("exporting the network to ONNX")
    contract = to_onnx(network, len(run.channels))
    single = portable(contract)
    note("comparing ONNX with PyTorch")
    parity = prove_parity(network, contract, single, len(run.channels))
    note("measuring the training frames")
    model = Model(
        spec=spec_of(network, run, section),
        variants=(Variant(engine="onnxruntime", precision="fp32", file=FP32, sha256=sha256_hex(contract)),),
        portable_sha256=sha256_hex(single),
        lineage=lineage_of(run),
        reference=reference_statistics(data),
    )
    folder = ModelFolder(out, model)
    write_atomic(folder.file(FP32), contract)
    write_atomic(folder.file(PORTABLE), single)
    folder.save()
    return Exported(folder, parity)


def to_onnx(network: HeadedUNet, channels: int) -> bytes:
    """The network as ONNX bytes, without anything that names a folder or a moment; the same bytes every time.

    Args:
        network: trained.
        channels: number of input channels.
    """
    image = torch.rand(2, channels, 37, 45) * 200
    n, h, w = (torch.export.Dim(name, min=1) for name in "NHW")
    with _quiet():
        program = torch.onnx.export(
            ContractGraph(network).eval(),
            (image, image.mean((2, 3)), image.std((2, 3))),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=["image", "mean", "std"],
            output_names=[head.name for head in network.heads],
            dynamic_shapes=({0: n, 2: h, 3: w}, {0: n}, {0: n}),
            verbose=False,
        )
    assert program is not None
    return _stripped(program.model_proto, network)


def spec_of(network: HeadedUNet, run: TrainingRun, section: ModelSection) -> ModelSpec:
    """The ModelSpec of a trained network.

    Raises:
        TrainError: a network that sees too far to be tiled.
    """
    stride = stride_of(network.net.channels)
    halo = -(-receptive_radius(network, len(run.channels)) // stride) * stride
    demands = run.section.demands_pixel_size or (
        run.target_pixel_size_um is not None and run.training_pixel_size_um is None
    )
    try:
        return ModelSpec(
            name=section.name,
            version=section.version,
            channels=run.channels,
            heads=run.heads,
            stride=stride,
            halo_px=halo,
            target_pixel_size_um=run.target_pixel_size_um,
            training_pixel_size_um=run.training_pixel_size_um,
            demands_pixel_size=demands,
            objects=run.objects,
        )
    except ValidationError as e:
        first = e.errors()[0]
        raise TrainError(
            f"the network cannot be described: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="train a network with fewer levels or residual units",
        ) from e


def lineage_of(run: TrainingRun) -> Lineage:
    """The lineage of a trained network."""
    return Lineage(
        data_set=run.data_set,
        training_run=run.digest,
        project_commit=run.project_commit,
        project_dirty=run.project_dirty,
        environment=run.environment,
        cellfleet_version=run.cellfleet_version,
    )


def _stripped(model: onnx.ModelProto, network: HeadedUNet) -> bytes:
    """Drop what names modules, stacks and folders; name the free dimensions plainly."""
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name, model.producer_version = "cellfleet", __version__
    graph = model.graph
    graph.name, graph.doc_string = "cellfleet", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for value in graph.output:
        for axis, name in ((0, "N"), (2, "H"), (3, "W")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    onnx.checker.check_model(model)
    assert [o.name for o in graph.output] == [h.name for h in network.heads]
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks a lot."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
