"""Messages between devices, API clients and the fleet server: typed, versioned, without unknown fields.

>>> from cellfleet.wire.states import MaintenanceWindow
>>> parse(MaintenanceWindow, b'{"start": "22:00", "end": "04:00"}').start
'22:00'
"""

from cellfleet.wire.base import PROTOCOL, Message, parse, parse_data

__all__ = ["PROTOCOL", "Message", "parse", "parse_data"]
