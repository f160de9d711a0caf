"""metrics.json: everything that was measured, for programs."""

from __future__ import annotations

from typing import Any

from cellfleet._version import __version__
from cellfleet.evaluate.assess import Assessment, EvaluatedVariant
from cellfleet.evaluate.evaluation import FrameResult
from cellfleet.evaluate.gate import policy_digest, thresholds
from cellfleet.evaluate.numbers import numbers_json, summary_json

FORMAT_VERSION = 1


def metrics_json(assessment: Assessment) -> dict[str, Any]:
    """Plain JSON data: model, data, numbers overall and per stratum and frame, variants, champion, verdict, timings."""
    a = assessment
    return {
        "format_version": FORMAT_VERSION,
        "model": {"name": a.name, "version": a.version, "digest": a.digest, "bundle": a.bundle},
        "data_set": a.evaluation.data_set,
        "split": a.evaluation.split,
        "variant": a.variant,
        "engine": {"name": a.origin.engine, "version": a.origin.engine_version},
        "run_digest": a.origin.run_digest,
        **summary_json(a.evaluation.summary),
        "frames": [_frame(f) for f in a.evaluation.worst_first],
        "variants": [_variant(v) for v in a.variants],
        "champion": a.champion.as_json() if a.champion else None,
        "verdict": a.verdict.code,
        "reasons": list(a.verdict.reasons),
        "checks": [c.as_json() for c in a.verdict.checks],
        "policy": policy_digest(a.policy),
        "thresholds": thresholds(a.policy),
        "used_in_training": None if a.used_in_training is None else list(a.used_in_training),
        "timings_ms": _rounded(a.evaluation.stages_ms),
        "cellfleet_version": __version__,
    }


def _frame(frame: FrameResult) -> dict[str, Any]:
    true, predicted = frame.confluence
    return {
        "id": frame.id,
        "stratum": frame.stratum,
        "height": frame.height,
        "width": frame.width,
        "missed": len(frame.score.missed),
        "false": len(frame.score.false),
        "true_confluence_percent": true,
        "predicted_confluence_percent": predicted,
        "numbers": numbers_json(frame.numbers),
        "flags": list(frame.flags),
        "timings_ms": _rounded(frame.timings_ms),
    }


def _variant(variant: EvaluatedVariant) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": variant.name, "sha256": variant.sha256, "bytes": variant.bytes}
    if variant.evaluation is None:
        return {**facts, "numbers": None, "ms_per_frame": None, "reason": variant.reason}
    ms = variant.evaluation.stages_ms.get("total")
    return {
        **facts,
        "numbers": numbers_json(variant.evaluation.summary.overall),
        "ms_per_frame": None if ms is None else round(ms, 3),
        "reason": "",
    }


def _rounded(timings: Any) -> dict[str, float]:
    return {stage: round(ms, 3) for stage, ms in timings.items()}
