"""The decision record: signed evidence of a gate, bound to the digests of bundle, data set version and policy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cellfleet._version import __version__
from cellfleet.errors import EvaluateError, LineageError
from cellfleet.evaluate.assess import Assessment
from cellfleet.evaluate.gate import policy_digest, thresholds
from cellfleet.evaluate.numbers import summary_json
from cellfleet.lineage import verify

KIND = "decision"
_FORMAT = 1
_UNTRUSTED = "do not rely on it; evaluate the bundle again"


def decision_payload(assessment: Assessment, approver: str = "", decided: datetime | None = None) -> dict[str, Any]:
    """What is signed; plain JSON data, the same for the same bundle, data, policy, engine and time.

    Args:
        assessment: of a bundle.
        approver: the approver's name; empty when there is none yet.
        decided: when; None leaves the time open.

    Returns:
        The payload of a decision record.

    Raises:
        EvaluateError: a model folder was measured, which can still change.
    """
    a = assessment
    if a.bundle is None:
        raise EvaluateError(
            "a decision record is about a bundle, and a model folder was measured",
            hint="build the bundle with `cellfleet bundle build`, then evaluate it",
        )
    origin = a.origin
    return {
        "format_version": _FORMAT,
        "kind": KIND,
        "bundle": a.bundle,
        "model": a.name,
        "version": a.version,
        "variant": a.variant,
        "variants": {v.name: {"sha256": v.sha256, **_short(v)} for v in a.variants},
        "engine": {"name": origin.engine, "version": origin.engine_version},
        "run_digest": origin.run_digest,
        "data_set": a.evaluation.data_set,
        "split": a.evaluation.split,
        "policy": policy_digest(a.policy),
        "thresholds": thresholds(a.policy),
        **summary_json(a.evaluation.summary),
        "used_in_training": None if a.used_in_training is None else list(a.used_in_training),
        "champion": a.champion.as_json() if a.champion else None,
        "checks": [c.as_json() for c in a.verdict.checks],
        "verdict": a.verdict.code,
        "reasons": list(a.verdict.reasons),
        "approver": approver,
        "decided": decided.isoformat(timespec="seconds") if decided else None,
        "lineage": a.lineage,
        "cellfleet_version": __version__,
    }


def verify_decision(
    envelope: Mapping[str, Any],
    trusted: Sequence[bytes],
    *,
    bundle: str | None = None,
    data_set: str | None = None,
    policy: str | None = None,
) -> dict[str, Any]:
    """Check the signature of a decision record and that it is about these very things.

    Args:
        envelope: as ``cellfleet.lineage.sign`` made it.
        trusted: public keys (PEM) that may sign.
        bundle, data_set, policy: digests that it must name; None: not compared.

    Returns:
        The payload.

    Raises:
        LineageError: unsigned, changed, signed by an unknown key, or about another bundle, data set version or policy.
    """
    if not trusted:
        raise LineageError(
            "there is no public key to check the decision record with",
            hint="put the signer's public key beside the path in lineage.key, with .pub added to its name",
        )
    payload = verify(envelope, trusted)
    if payload.get("kind") != KIND or payload.get("format_version") != _FORMAT:
        raise LineageError(
            f"a signed record, but no decision record of format {_FORMAT}",
            hint="name the decision.json of an evaluation",
        )
    wanted = {"bundle": bundle, "data_set": data_set, "policy": policy}
    names = {"bundle": "bundle", "data_set": "data set version", "policy": "policy"}
    for key, digest in wanted.items():
        found = str(payload.get(key, ""))
        if digest is not None and found != digest:
            raise LineageError(
                f"the decision record is about another {names[key]} ({found[:12]}, not {digest[:12]})", hint=_UNTRUSTED
            )
    return payload


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        EvaluateError: absent, unreadable or something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as e:
        raise EvaluateError(f"cannot read {path}: {e.strerror}", hint="check the path and its permissions") from e
    except (ValueError, RecursionError) as e:
        raise EvaluateError(f"{path} is not valid JSON: {e}", hint="name a file that `cellfleet evaluate` wrote") from e
    if not isinstance(value, dict):
        raise EvaluateError(
            f"{path} is not what `cellfleet evaluate` writes", hint="name a metrics.json or decision.json"
        )
    return value


def _short(variant: Any) -> dict[str, Any]:
    if variant.evaluation is None:
        return {"reason": variant.reason}
    overall = variant.evaluation.summary.overall
    return {"ap50": overall.ap50, "map": overall.map, "dice": overall.dice}
