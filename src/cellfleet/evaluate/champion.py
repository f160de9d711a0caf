"""The champion: a model to be measured, or the numbers that an earlier evaluation wrote down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellfleet.errors import EvaluateError
from cellfleet.evaluate.assess import open_model
from cellfleet.evaluate.decision import read_json, verify_decision
from cellfleet.evaluate.gate import Champion
from cellfleet.evaluate.numbers import KEY_NUMBERS
from cellfleet.runtime.loader import ModelSource


def open_champion(path: Path, trusted: Sequence[bytes], *, data_set: str, split: str) -> Champion | ModelSource:
    """Open what the user named as the champion.

    Args:
        path: a bundle, a model folder, or the metrics.json or decision.json of an earlier evaluation.
        trusted: public keys (PEM) whose decision records count.
        data_set, split: what the candidate is measured on; an earlier evaluation must have used the same.

    Raises:
        EvaluateError: an earlier evaluation of other data, or a file of another kind.
        LineageError: a decision record that was changed, or that no trusted key signed.
        BundleError: a damaged bundle or model folder.
    """
    if path.suffix != ".json":
        return open_model(path)
    record = read_json(path)
    signed = "payload" in record
    if signed:
        record = verify_decision(record, trusted)
        facts: Mapping[str, Any] = {"name": record["model"], "version": record["version"], "digest": record["bundle"]}
    else:
        facts = record.get("model", {})
    measured_on = (record.get("data_set"), record.get("split"))
    if measured_on != (data_set, split):
        raise EvaluateError(
            f"{path} was measured on {_named(*measured_on)}, the candidate is on {_named(data_set, split)}",
            hint="name the champion's bundle instead, and it is measured on the same frames",
        )
    try:
        return Champion(
            name=str(facts["name"]),
            version=str(facts["version"]),
            model=str(facts["digest"]),
            variant=str(record["variant"]),
            numbers={k: float(record["numbers"][k]) for k in KEY_NUMBERS},
            strata={str(s): float(n["ap50"]) for s, n in record["strata"].items()},
            evidence="decision record" if signed else "metrics.json",
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise EvaluateError(
            f"{path} holds no numbers of an evaluation ({e!r})", hint="name a metrics.json or decision.json"
        ) from e


def _named(data_set: Any, split: Any) -> str:
    return f"the split {split!s} of the data set version {str(data_set)[:12]}"
