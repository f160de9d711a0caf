"""The instrument: camera, segmenter and agent processes; slots, journal, updates, spool.

>>> from cellfleet.device.update.state_machine import next_state
>>> next_state("idle", "update-wanted")
'checking'
"""

from cellfleet.device.interfaces import EventSink, Scheduler, Slot, WorkSnapshot
from cellfleet.device.system.home import Home

__all__ = ["EventSink", "Home", "Scheduler", "Slot", "WorkSnapshot"]
