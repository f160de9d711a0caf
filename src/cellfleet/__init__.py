"""cellfleet takes a cell-segmentation model from annotated images to a fleet of instruments, and back.

The packages are layered; see ``docs/architecture.md`` and ``tests/test_architecture.py``.

>>> import cellfleet
>>> cellfleet.__version__.count(".")
2
"""

from cellfleet._version import __version__

__all__ = ["__version__"]
