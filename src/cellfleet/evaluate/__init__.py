"""A model against a data set version: numbers, gate, report and signed decision record.

>>> from cellfleet.config.model import GateSection
>>> len(policy_digest(GateSection()))
64
"""

from cellfleet.evaluate.decision import decision_payload, verify_decision
from cellfleet.evaluate.evaluation import Evaluation, evaluate
from cellfleet.evaluate.gate import Champion, Verdict, gate, policy_digest
from cellfleet.evaluate.write import evaluate_model

__all__ = [
    "Champion",
    "Evaluation",
    "Verdict",
    "decision_payload",
    "evaluate",
    "evaluate_model",
    "gate",
    "policy_digest",
    "verify_decision",
]
