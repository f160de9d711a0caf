"""Is the description valid for the programs that read it? Asked of bioimageio.spec, without network."""

from __future__ import annotations

import logging
import warnings
import zipfile
from pathlib import Path

import numpy as np

from cellfleet.bundle.description import run_portable
from cellfleet.bundle.folder import PORTABLE
from cellfleet.bundle.golden import read_npy
from cellfleet.bundle.reader import Bundle
from cellfleet.bundle.refusals import BadDescription, HostileModel
from cellfleet.errors import BundleError

TENSOR_TOLERANCE = 1e-4


def check_description(path: Path) -> str:
    """Validate bioimageio.yaml and the files that it names, from the zip.

    Returns:
        The version of the specification's library.

    Raises:
        BundleError: the extra ``bundle`` is not installed.
        BadDescription: invalid, with the first reason.
    """
    logging.getLogger("bioimageio").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import bioimageio.spec as spec
            from loguru import logger
    except ImportError as e:
        raise BundleError("bioimageio.spec is not installed", hint="pip install 'cellfleet[bundle]'") from e
    logger.disable("bioimageio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The library would leave a file open that it opened itself.
        with zipfile.ZipFile(path) as archive, spec.ValidationContext(perform_io_checks=True, disable_cache=True):
            found = spec.load_description(archive)
    if isinstance(found, spec.InvalidDescr):
        summary = found.validation_summary
        details = [e for d in summary.details for e in d.errors]
        first = f"{'.'.join(map(str, details[0].loc))}: {details[0].msg}" if details else summary.status
        raise BadDescription(f"{path}: bioimageio.yaml is not valid: {first}")
    return str(spec.__version__)


def check_test_tensors(bundle: Bundle) -> float:
    """Run portable.onnx alone on the test tensor.

    Returns:
        The greatest difference to the stored outputs.

    Raises:
        HostileModel: it differs by more than TENSOR_TOLERANCE.
    """
    image = read_npy(bundle.read("test-image.npy"), "test-image.npy", dtypes=("<f4",), ndim=4)
    outputs = run_portable(bundle.read(PORTABLE), image)
    worst = 0.0
    for name, value in outputs.items():
        stored = read_npy(bundle.read(f"test-{name}.npy"), f"test-{name}.npy", dtypes=("<f4",), ndim=4)
        if stored.shape != value.shape:
            raise HostileModel(
                f"{bundle.path}: portable.onnx answers {list(value.shape)}, the test says {list(stored.shape)}"
            )
        worst = max(worst, float(np.abs(stored - value).max()))
    if not worst <= TENSOR_TOLERANCE:
        raise HostileModel(f"{bundle.path}: portable.onnx differs from the test tensors by {worst:.2g}")
    return worst
