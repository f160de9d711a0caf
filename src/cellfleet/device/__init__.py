"""An instrument: camera, segmenter and agent processes; slots, journal, updates, spool.

>>> from cellfleet.device.table import next_state
>>> next_state("idle", "update-wanted")
'checking'
"""

from cellfleet.device.home import Home
from cellfleet.device.seams import EventSink, Seen, Slot, Work

__all__ = ["EventSink", "Home", "Seen", "Slot", "Work"]
