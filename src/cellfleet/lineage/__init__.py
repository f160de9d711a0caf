"""The answer to the auditor: which model, data, commit, numbers and approver stand behind a mask.

>>> digest = run_digest("0" * 64, "onnxruntime/fp32", "onnxruntime", "1.32.0", {"tile_px": 2048})
>>> len(digest)
64
"""

from cellfleet.lineage.chain import trace
from cellfleet.lineage.digest import run_digest
from cellfleet.lineage.records import RecordStore
from cellfleet.lineage.signing import SigningKey, sign, verify
from cellfleet.lineage.state import environment_digest, project_state

__all__ = [
    "RecordStore",
    "SigningKey",
    "environment_digest",
    "project_state",
    "run_digest",
    "sign",
    "trace",
    "verify",
]
