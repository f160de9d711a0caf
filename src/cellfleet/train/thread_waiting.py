"""Threads of torch that wait for each other sleep instead of spinning.

Imported before torch, whose OpenMP library reads the variable once, when it is loaded. On a machine of one's own it costs
about a tenth; beside other busy processes training took up to three times as long without it. A value that is set already stays.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
