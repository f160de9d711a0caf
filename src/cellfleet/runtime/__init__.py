"""ModelSpec + bytes + image -> Segmentation; engines behind one small interface; no torch.

>>> from cellfleet.runtime import make_engine
>>> from cellfleet.errors import EngineError
>>> try:
...     make_engine("abacus", b"")
... except EngineError as e:
...     print(e)
unknown engine 'abacus'
"""

from cellfleet.runtime.engines import Engine, make_engine
from cellfleet.runtime.loader import load_segmenter
from cellfleet.runtime.objects import objects_from_maps
from cellfleet.runtime.results.mask_file import read_mask_metadata
from cellfleet.runtime.results.outputs import OutputOptions, segment_files
from cellfleet.runtime.segmenter import Segmentation, Segmenter

__all__ = [
    "Engine",
    "OutputOptions",
    "Segmentation",
    "Segmenter",
    "load_segmenter",
    "make_engine",
    "objects_from_maps",
    "read_mask_metadata",
    "segment_files",
]
