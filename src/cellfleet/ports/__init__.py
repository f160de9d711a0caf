"""Interfaces to the outside world: disk, clock, network, progress. Tests and simulators implement them too.

>>> from pathlib import Path
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as d:
...     write_atomic(Path(d) / "a.txt", b"all or nothing")
...     (Path(d) / "a.txt").read_bytes()
b'all or nothing'
"""

from cellfleet.ports.clock import Clock, FixedClock, SystemClock
from cellfleet.ports.disk import atomic_path, make_dir, write_atomic
from cellfleet.ports.progress import ProgressFn, silent

__all__ = ["Clock", "FixedClock", "ProgressFn", "SystemClock", "atomic_path", "make_dir", "silent", "write_atomic"]
