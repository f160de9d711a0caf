"""Self-test: decides whether a bundle may become active on this instrument, from its scores on golden frames. Pure.

A bundle's own golden frames are not sufficient, because a bad model may agree with its own bad masks: the new model also
segments the golden frames of the active bundle, and an absolute minimum holds for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cellfleet.config.fleet import AgentSection
from cellfleet.device.interfaces import GoldenOutcome, SelfTested
from cellfleet.wire.reason import Reason, because, english, joined


@dataclass(frozen=True)
class Judged:
    """Result of one variant.

    Attributes:
        worst_ms: slowest golden frame.
        reasons: why the variant must not be used; empty when it passed.
        numbers: plain JSON data.
    """

    variant: str
    run_digest: str
    worst_ms: float
    reasons: tuple[Reason, ...]
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """The chosen variant.

    Attributes:
        chosen: None when no variant passed.
        reason: for the report.
        numbers: variant -> its numbers, plain JSON data.
    """

    chosen: Judged | None
    reason: Reason
    numbers: dict[str, Any]


def judge(tested: SelfTested, limits: AgentSection, active_ap50: float | None) -> Judged:
    """Judge one variant.

    Args:
        tested: results on its own golden frames first, then on those of the active bundle where there is one.
        limits: settings of this update; a value equal to its limit passes, NaN does not.
        active_ap50: AP@0.5 of the active model on its own golden frames, 0 to 1; None: there is no active bundle.

    Returns:
        Reasons against the variant, and its numbers.
    """
    reasons = [tested.problem] if tested.problem else []
    own = tested.results[0] if tested.results else None
    if own is None and not reasons:
        reasons.append(because("selftest.no-results"))
    for i, result in enumerate(tested.results):
        reasons += _of_own(result, limits) if i == 0 else _of_active(result, limits)
    if own is not None and active_ap50 is not None:
        reasons += _against_active(tested, limits, active_ap50)
    if not tested.memory_mb <= limits.selftest_max_memory_mb:  # NaN does not pass, here and below
        limit_mb = limits.selftest_max_memory_mb
        reasons.append(because("selftest.memory", memory_mb=tested.memory_mb, limit_mb=limit_mb))
    numbers: dict[str, Any] = {
        "ap50": own.ap50 if own else None,
        "agreement": own.agreement if own else None,
        "least_agreement": own.least_agreement if own else None,
        "worst_ms": max((r.worst_ms for r in tested.results), default=0.0),
        "memory_mb": tested.memory_mb,
        "active_golden_ap50": tested.results[1].ap50 if len(tested.results) > 1 else None,
        "active_ap50": active_ap50,
        "reasons": [english(r) for r in reasons],
    }
    worst_ms = numbers["worst_ms"]
    numbers = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
    return Judged(tested.variant, tested.run_digest, worst_ms, tuple(reasons), numbers)


def choose(judged: Sequence[Judged], wanted: str = "") -> Choice:
    """Choose the fastest variant that passed.

    Args:
        judged: the variants.
        wanted: name of the only variant that may be chosen; empty: any.

    Returns:
        The choice, with the numbers of all variants.
    """
    numbers = {j.variant: j.numbers for j in judged}
    passed = sorted((j for j in judged if not j.reasons and wanted in ("", j.variant)), key=lambda j: j.worst_ms)
    refused = [because("selftest.variant", *j.reasons, variant=j.variant) for j in judged if j.reasons]
    if not passed:
        return Choice(None, joined(refused) or because("selftest.no-variant"), numbers)
    best = passed[0]
    if wanted:
        reason = because("selftest.wanted", variant=best.variant, ms=best.worst_ms)
    else:
        times = ", ".join(f"{j.variant} {j.worst_ms:.0f} ms" for j in passed)
        reason = because("selftest.fastest", variant=best.variant, times=times)
    if refused:
        reason = because("several", reason, because("selftest.not-used", *refused))
    return Choice(best, reason, numbers)


def _of_own(result: GoldenOutcome, limits: AgentSection) -> list[Reason]:
    """Golden frames of the bundle under test."""
    if result.problem:
        return [because("selftest.frames", detail=result.problem)]
    out = []
    least = max(limits.min_golden_ap50, result.least_ap50)
    if not result.ap50 >= least:
        out.append(because("selftest.ap50", ap50=result.ap50, limit=least))
    if not result.agreement >= result.least_agreement:
        out.append(because("selftest.agreement", agreement=result.agreement, limit=result.least_agreement))
    if not result.worst_ms <= limits.selftest_max_ms:
        out.append(because("selftest.time", ms=result.worst_ms, limit_ms=limits.selftest_max_ms))
    return out


def _of_active(result: GoldenOutcome, limits: AgentSection) -> list[Reason]:
    """Golden frames of the active bundle, segmented by the model under test."""
    if result.problem:
        return [because("selftest.frames-active", detail=result.problem)]
    out = []
    if not result.ap50 >= limits.min_golden_ap50:
        out.append(because("selftest.ap50-active", ap50=result.ap50, limit=limits.min_golden_ap50))
    if not result.worst_ms <= limits.selftest_max_ms:
        out.append(because("selftest.time-active", ms=result.worst_ms, limit_ms=limits.selftest_max_ms))
    return out


def _against_active(tested: SelfTested, limits: AgentSection, active_ap50: float) -> list[Reason]:
    if len(tested.results) < 2:
        return [because("selftest.active-not-run")]
    found = tested.results[1]
    least = active_ap50 - limits.max_golden_loss_ap50
    if (
        found.problem or found.ap50 >= least or found.ap50 < limits.min_golden_ap50
    ):  # the latter two have a reason already
        return []
    limit = limits.max_golden_loss_ap50
    return [because("selftest.ap50-loss", ap50=found.ap50, active=active_ap50, limit=limit)]
