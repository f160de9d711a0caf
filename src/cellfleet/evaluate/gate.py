"""The gate: numbers against the thresholds of the policy; every number that failed is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellfleet.canonical import digest_of
from cellfleet.config.model import GateSection
from cellfleet.evaluate.evaluation import Evaluation

_SLACK = 1e-9
"""Differences below this are rounding of floating-point numbers, not quality."""

# field of the policy -> (field of the numbers, what people call it, number of digits)
_LEAST = {
    "min_ap50": ("ap50", "AP@0.5"),
    "min_map": ("map", "Mean AP"),
    "min_dice": ("dice", "Dice"),
}
_GREATEST = {
    "max_count_error": ("count_error", "Count error"),
    "max_confluence_error": ("confluence_error", "Confluence error (percentage points)"),
}


@dataclass(frozen=True)
class Champion:
    """The model in production, as measured on the same frames.

    Attributes:
        name, version: of the model.
        model: digest of the bundle or the model folder.
        variant: ``engine/precision`` that was measured.
        numbers: name -> value, at least ``ap50``.
        strata: stratum -> AP@0.5.
        evidence: where the numbers come from: ``measured``, ``decision record`` or ``metrics.json`` (which is not signed).
    """

    name: str
    version: str
    model: str
    variant: str
    numbers: Mapping[str, float]
    strata: Mapping[str, float] = field(default_factory=dict)
    evidence: str = "measured"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "name": self.name,
            "version": self.version,
            "model": self.model,
            "variant": self.variant,
            "numbers": dict(self.numbers),
            "strata": dict(self.strata),
            "evidence": self.evidence,
        }


@dataclass(frozen=True)
class Check:
    """One number against one threshold.

    Attributes:
        name: field of the policy, with the stratum where there is one: ``min_stratum_ap50[HeLa]``.
        value, threshold: the number and its bound.
        passed: the bound is kept.
        text: one plain sentence.
    """

    name: str
    value: float
    threshold: float
    passed: bool
    text: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Verdict:
    """The answer of the gate.

    Attributes:
        passed: every check passed, and there was at least one.
        checks: in the order of the policy.
    """

    passed: bool
    checks: tuple[Check, ...]

    @property
    def code(self) -> str:
        """``passed`` or ``failed``."""
        return "passed" if self.passed else "failed"

    @property
    def reasons(self) -> tuple[str, ...]:
        """A sentence for each number that failed."""
        if not self.checks:
            return ("The policy sets no threshold, so the gate proves nothing",)
        return tuple(check.text for check in self.checks if not check.passed)


def gate(
    evaluation: Evaluation,
    policy: GateSection,
    champion: Champion | None = None,
    *,
    used_in_training: Sequence[str] | None = None,
) -> Verdict:
    """Hold an evaluation against the policy.

    Args:
        evaluation: the candidate.
        policy: thresholds; an absent one is not checked.
        champion: measured on the same frames; without one, nothing is compared.
        used_in_training: ids of evaluated frames whose pixels the model was trained or tuned with; None when unknown.
            One such frame fails the gate.

    Returns:
        Passed or failed, with one line per threshold.
    """
    overall = evaluation.summary.overall
    checks = [
        _least(name, label, getattr(overall, attribute), getattr(policy, name))
        for name, (attribute, label) in _LEAST.items()
        if getattr(policy, name) is not None
    ]
    checks += [
        _greatest(name, label, getattr(overall, attribute), getattr(policy, name))
        for name, (attribute, label) in _GREATEST.items()
        if getattr(policy, name) is not None
    ]
    if policy.min_stratum_ap50 is not None:
        checks += [
            _least(f"min_stratum_ap50[{stratum}]", f"AP@0.5 of {stratum}", numbers.ap50, policy.min_stratum_ap50)
            for stratum, numbers in evaluation.summary.strata.items()
        ]
    if champion is not None and policy.max_champion_loss_ap50 is not None:
        checks.append(_champion(champion, overall.ap50, policy.max_champion_loss_ap50))
    if used_in_training is not None:
        checks.append(_held_out(used_in_training, len(evaluation.frames)))
    return Verdict(bool(checks) and all(c.passed for c in checks), tuple(checks))


def policy_digest(policy: GateSection) -> str:
    """Identity of a policy: the digest of its thresholds."""
    return digest_of(thresholds(policy))


def thresholds(policy: GateSection) -> dict[str, Any]:
    """The thresholds as plain JSON data; those that are not set are null."""
    return policy.model_dump(mode="json")


def _least(name: str, label: str, value: float, threshold: float) -> Check:
    passed = value >= threshold - _SLACK
    text = f"{label} is {_number(value, threshold)}; the minimum is {threshold:g}"
    return Check(name, value, threshold, passed, text)


def _greatest(name: str, label: str, value: float, threshold: float) -> Check:
    passed = value <= threshold + _SLACK
    text = f"{label} is {_number(value, threshold)}; the maximum is {threshold:g}"
    return Check(name, value, threshold, passed, text)


def _champion(champion: Champion, ap50: float, threshold: float) -> Check:
    before = champion.numbers["ap50"]
    loss = before - ap50
    change = f"{abs(loss):.3f} {'below' if loss > 0 else 'above'}" if round(loss, 3) else "the same as"
    text = (
        f"AP@0.5 is {ap50:.3f}, {change} the {before:.3f} of the champion {champion.name} {champion.version}; "
        f"a loss of the maximum is {threshold:g}"
    )
    return Check("max_champion_loss_ap50", loss, threshold, loss <= threshold + _SLACK, text)


def _held_out(used: Sequence[str], frames: int) -> Check:
    if not used:
        text = f"None of the {frames} frames was used to train or tune the model"
    else:
        text = f"{len(used)} of the {frames} frames were used to train or tune the model, such as {used[0]}"
    return Check("held_out", float(len(used)), 0.0, not used, text)


def _number(value: float, threshold: float) -> str:
    """Enough digits that a failed number never looks equal to its threshold."""
    for digits in (3, 4, 5, 6):
        text = f"{value:.{digits}f}"
        if (float(text) >= threshold) == (value >= threshold) and (float(text) == threshold) == (value == threshold):
            return text
    return f"{value:.9g}"
