"""report.html: one self-contained page for people; the same bytes for the same input."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from cellfleet.errors import EvaluateError
from cellfleet.evaluate.assess import REFERENCE, Assessment, EvaluatedVariant
from cellfleet.evaluate.charts import ap_chart, count_chart, style, swatch
from cellfleet.evaluate.evaluation import FrameResult
from cellfleet.evaluate.gate import policy_digest
from cellfleet.evaluate.output import REPORT_PX
from cellfleet.evaluate.pictures import FALSE, FOUND, MISSED, picture_shape

_TEMPLATE = "report.html.j2"


def report_html(
    assessment: Assessment,
    pictures: Mapping[str, bytes],
    *,
    approver: str = "",
    dropped: Mapping[str, str] | None = None,
) -> str:
    """The report.

    Args:
        assessment: what was found.
        pictures: frame id -> JPEG; these frames are shown, the worst first.
        approver: named in the report when given.
        dropped: variants that were tried but are not in the model -> reason.

    Raises:
        EvaluateError: the library for pages is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as e:
        raise EvaluateError(
            "the report needs jinja2, which is not installed", hint="pip install 'cellfleet[evaluate]'"
        ) from e
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cellfleet.evaluate"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"f3": lambda v: f"{v:.3f}", "pct": lambda v: f"{100 * v:.1f} %", "n": lambda v: f"{v:,}"}
    evaluation = assessment.evaluation
    styles = {stratum: i for i, stratum in enumerate(evaluation.summary.strata, 1)}
    legend = [("all frames", Markup(swatch(0)))] if len(styles) > 1 else []
    legend += [(s, Markup(swatch(i))) for s, i in styles.items()] if len(styles) > 1 else []
    return environment.get_template(_TEMPLATE).render(
        a=assessment,
        overall=evaluation.summary.overall,
        strata=evaluation.summary.strata,
        key_numbers=key_numbers(assessment),
        checks=[{"name": _check_name(c.name), "check": c} for c in assessment.verdict.checks],
        legend=legend,
        ap_chart=Markup(ap_chart(evaluation.summary)),
        count_chart=Markup(count_chart(evaluation.frames, styles if len(styles) > 1 else dict.fromkeys(styles, 1))),
        variants=[_variant(v, assessment) for v in assessment.variants],
        dropped=dict(dropped or {}),
        frames=[_frame(f, pictures[f.id]) for f in evaluation.worst_first if f.id in pictures],
        policy=policy_digest(assessment.policy),
        approver=approver,
        colours={"found": _hex(FOUND), "false": _hex(FALSE), "missed": _hex(MISSED)},
        style=style,
    )


def key_numbers(assessment: Assessment) -> list[dict[str, Any]]:
    """The five numbers on top: label, value, what it means, the threshold, the change against the champion."""
    policy, overall = assessment.policy, assessment.evaluation.summary.overall
    before = assessment.champion.numbers if assessment.champion else {}
    rows = [
        ("ap50", "AP@0.5", "objects found and outlined rightly", policy.min_ap50, "minimum"),
        ("map", "Mean AP", "the same, for ever stricter outlines", policy.min_map, "minimum"),
        ("dice", "Dice", "overlap of the covered area", policy.min_dice, "minimum"),
        ("count_error", "Count error", "off the true number, per frame", policy.max_count_error, "maximum"),
        (
            "confluence_error",
            "Confluence error",
            "off the true confluence, per frame",
            policy.max_confluence_error,
            "maximum",
        ),
    ]
    return [
        {
            "label": label,
            "value": _shown(name, getattr(overall, name)),
            "meaning": meaning,
            "bound": "" if bound is None else f"{word} {_shown(name, bound)}",
            **_change(name, getattr(overall, name), before.get(name)),
        }
        for name, label, meaning, bound, word in rows
    ]


def _change(name: str, value: float, before: float | None) -> dict[str, str]:
    if before is None:
        return {"change": "", "trend": ""}
    difference = value - before
    shown = _shown(name, abs(difference))
    if shown == _shown(name, 0.0):
        return {"change": "same as the champion", "trend": "same"}
    better = (difference > 0) == (name in ("ap50", "map", "dice"))
    sign = "+" if difference > 0 else "−"
    return {"change": f"{sign}{shown} against the champion", "trend": "better" if better else "worse"}


def _shown(name: str, value: float) -> str:
    if name == "count_error":
        return f"{100 * value:.1f} %"
    return f"{value:.1f} points" if name == "confluence_error" else f"{value:.3f}"


def _check_name(name: str) -> str:
    """A threshold's name in words."""
    base, _, stratum = name.partition("[")
    words = {
        "min_ap50": "AP@0.5",
        "min_map": "Mean AP",
        "min_dice": "Dice",
        "max_count_error": "Count error",
        "max_confluence_error": "Confluence error",
        "min_stratum_ap50": "AP@0.5 of",
        "max_champion_loss_ap50": "AP@0.5 against the champion",
        "held_out": "Held-out frames",
    }
    return f"{words.get(base, base)} {stratum.rstrip(']')}".strip()


def _variant(variant: EvaluatedVariant, assessment: Assessment) -> dict[str, Any]:
    reference = next((v.evaluation for v in assessment.variants if v.name == REFERENCE), None)
    facts: dict[str, Any] = {
        "name": variant.name,
        "mb": f"{variant.bytes / 1e6:.2f}",
        "primary": variant.name == assessment.variant,
    }
    if variant.evaluation is None:
        return {**facts, "numbers": None, "ms": None, "reason": variant.reason}
    numbers = variant.evaluation.summary.overall
    ms = variant.evaluation.stages_ms.get("total")
    if facts["primary"]:
        reason = "in the model; the gate is about this one"
    elif reference is not None:
        reason = f"in the model; AP@0.5 {numbers.ap50 - reference.summary.overall.ap50:+.3f} against {REFERENCE}"
    else:
        reason = "in the model"
    return {
        **facts,
        "numbers": numbers,
        "ms": None if ms is None else f"{ms:.0f}",
        "reason": reason.replace("-0.", "−0."),
    }


def _frame(frame: FrameResult, jpeg: bytes) -> dict[str, Any]:
    height, width = picture_shape(frame.height, frame.width, REPORT_PX)
    true, predicted = frame.confluence
    return {
        "frame": frame,
        "src": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode(),
        "height": height,
        "width": width,
        "found": frame.score.matched[0],
        "false": len(frame.score.false),
        "missed": len(frame.score.missed),
        "confluence": (f"{true:.1f} %", f"{predicted:.1f} %"),
    }


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
