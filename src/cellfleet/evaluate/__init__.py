"""A model against a data set version: numbers, gate, report and signed decision record.

>>> from cellfleet.config import GateSection
>>> len(policy_digest(GateSection()))
64
"""

from cellfleet.evaluate.assess import Assessment, assess, open_model
from cellfleet.evaluate.decision import decision_payload, verify_decision
from cellfleet.evaluate.evaluation import Evaluation, FrameResult, Scene, evaluate
from cellfleet.evaluate.gate import Champion, Check, Verdict, gate, policy_digest
from cellfleet.evaluate.write import Written, evaluate_model, folder_name

__all__ = [
    "Assessment",
    "Champion",
    "Check",
    "Evaluation",
    "FrameResult",
    "Scene",
    "Verdict",
    "Written",
    "assess",
    "decision_payload",
    "evaluate",
    "evaluate_model",
    "folder_name",
    "gate",
    "open_model",
    "policy_digest",
    "verify_decision",
]
