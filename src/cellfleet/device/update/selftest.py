"""Self-test: may a bundle become active on this instrument? Pure judgement of its segmentation of golden frames.

A bundle's own golden frames are not sufficient, because nonsense agrees with itself: the new model also segments the golden
frames of the active bundle, and an absolute minimum holds for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cellfleet.config.fleet import AgentSection
from cellfleet.device.interfaces import GoldenResult, SelfTested


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
    reasons: tuple[str, ...]
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
    reason: str
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
        reasons.append("its segmenter gave no results")
    for i, result in enumerate(tested.results):
        reasons += _of_frames(result, "its own" if i == 0 else "the active bundle's", limits, own=i == 0)
    if own is not None and active_ap50 is not None:
        reasons += _against_active(tested, limits, active_ap50)
    if tested.memory_mb > limits.selftest_max_memory_mb:
        reasons.append(f"it uses {tested.memory_mb:.0f} MB, {limits.selftest_max_memory_mb:.0f} MB are allowed")
    numbers: dict[str, Any] = {
        "ap50": own.ap50 if own else None,
        "agreement": own.agreement if own else None,
        "least_agreement": own.least_agreement if own else None,
        "worst_ms": max((r.worst_ms for r in tested.results), default=0.0),
        "memory_mb": tested.memory_mb,
        "active_golden_ap50": tested.results[1].ap50 if len(tested.results) > 1 else None,
        "active_ap50": active_ap50,
        "reasons": reasons,
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
    refused = "; ".join(f"{j.variant}: {'; '.join(j.reasons)}" for j in judged if j.reasons)
    if not passed:
        return Choice(None, refused or "no variant of it can run here", numbers)
    best = passed[0]
    if wanted:
        text = f"{best.variant}: asked for in the settings, passed in {best.worst_ms:.0f} ms"
    else:
        text = f"{best.variant} is the fastest that passed: " + ", ".join(
            f"{j.variant} {j.worst_ms:.0f} ms" for j in passed
        )
    return Choice(best, f"{text}; not used: {refused}" if refused else text, numbers)


def _of_frames(result: GoldenResult, whose: str, limits: AgentSection, *, own: bool) -> list[str]:
    if result.problem:
        return [f"{whose} golden frames: {result.problem}"]
    out = []
    least = max(limits.min_golden_ap50, result.least_ap50 if own else 0.0)
    if not result.ap50 >= least:
        out.append(f"AP@0.5 {result.ap50:.3f} on {whose} golden frames, at least {least:.3f} is asked for")
    if own and not result.agreement >= result.least_agreement:
        out.append(
            f"it agrees to {result.agreement:.3f} with what its builder's machine drew, "
            f"at least {result.least_agreement:.3f} is asked for"
        )
    if not result.worst_ms <= limits.selftest_max_ms:
        out.append(
            f"a golden frame of {whose} takes {result.worst_ms:.0f} ms, {limits.selftest_max_ms:.0f} ms are allowed"
        )
    return out


def _against_active(tested: SelfTested, limits: AgentSection, active_ap50: float) -> list[str]:
    if len(tested.results) < 2:
        return ["the active bundle's golden frames were not drawn"]
    found = tested.results[1]
    least = active_ap50 - limits.max_golden_loss_ap50
    if found.problem or found.ap50 >= least or found.ap50 < limits.min_golden_ap50:  # these two have a reason already
        return []
    return [
        f"AP@0.5 {found.ap50:.3f} on the active bundle's golden frames, where the active model reaches "
        f"{active_ap50:.3f}; a loss of {limits.max_golden_loss_ap50:g} is allowed"
    ]
