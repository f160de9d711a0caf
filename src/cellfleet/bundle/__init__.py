"""The bundle: a model as shipped, one deterministic archive that describes itself.

>>> from cellfleet.bundle import open_bundle
>>> from cellfleet.errors import BundleError
>>> try:
...     open_bundle("absent.bundle.zip")
... except BundleError as e:
...     print(e)
absent.bundle.zip: no such file
"""

from cellfleet.bundle.builder import build_bundle
from cellfleet.bundle.description import ModelCard
from cellfleet.bundle.folder import ModelFolder
from cellfleet.bundle.golden import GoldenFrame
from cellfleet.bundle.onnx_policy import check_onnx
from cellfleet.bundle.reader import Bundle, open_bundle
from cellfleet.bundle.spec import ModelSpec

__all__ = [
    "Bundle",
    "GoldenFrame",
    "ModelCard",
    "ModelFolder",
    "ModelSpec",
    "build_bundle",
    "check_onnx",
    "open_bundle",
]
