"""Charts as inline SVG: no script, no file of its own; colours come from the page, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from cellfleet.evaluate.evaluation import FrameResult
from cellfleet.metrics import Summary

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 46
SERIES = 6
"""Number of styles (colour, dash and marker) before they repeat; style 0 is for all frames together."""

Scale = Callable[[float], float]


def ap_chart(summary: Summary) -> str:
    """AP over the IoU that a match must reach: one line for all frames, one for each stratum when there are several."""
    lines = {"all frames": summary.overall.ap}
    if len(summary.strata) > 1:
        lines |= {name: numbers.ap for name, numbers in summary.strata.items()}
    x, y = _scale(0.5, 0.95, _LEFT, _WIDTH - _RIGHT), _scale(0.0, 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        _grid([0.5, 0.6, 0.7, 0.8, 0.9], [0, 0.2, 0.4, 0.6, 0.8, 1.0], x, y),
        _axis_names("IoU that a match must reach", "AP"),
    ]
    for index, (_, ap) in reversed(list(enumerate(lines.items()))):
        points = " ".join(f"{x(float(t)):.1f},{y(v):.1f}" for t, v in ap.items())
        parts.append(f'<polyline class="line {style(index)}" points="{points}"/>')
        parts += [_marker(index, x(float(t)), y(v), f"IoU {t}: AP {v:.3f}") for t, v in ap.items()]
    values = list(summary.overall.ap.values())
    text = f"AP of all frames falls from {values[0]:.3f} at IoU 0.50 to {values[-1]:.3f} at IoU 0.95."
    return _svg("ap-chart", "AP over the required overlap", text, parts)


def count_chart(frames: Sequence[FrameResult], strata: Mapping[str, int]) -> str:
    """Predicted over true number of objects, a point per frame; on the dashed line both are equal.

    Args:
        frames: the frames.
        strata: stratum -> number of its style.
    """
    top = max(1, *(max(f.score.true, f.score.predicted) for f in frames))
    step = _nice_step(top)
    limit = math.ceil(top * 1.02 / step) * step
    ticks = [i * step for i in range(round(limit / step) + 1)]
    x, y = _scale(0, limit, _LEFT, _WIDTH - _RIGHT), _scale(0, limit, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        _grid(ticks, ticks, x, y),
        _axis_names("objects outlined by people", "objects found by the model"),
        f'<line class="equal" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(limit):.1f}" y2="{y(limit):.1f}"/>',
    ]
    for f in frames:
        note = f"{f.id}: {f.score.true} true, {f.score.predicted} predicted"
        parts.append(_marker(strata[f.stratum], x(f.score.true), y(f.score.predicted), note, 5))
    more = sum(f.score.predicted > f.score.true for f in frames)
    fewer = sum(f.score.predicted < f.score.true for f in frames)
    text = f"Of {len(frames)} frames, the model finds too many objects in {more} and too few in {fewer}."
    return _svg("count-chart", "Counted objects, true and predicted", text, parts)


def style(index: int) -> str:
    """CSS class of the index-th series."""
    return f"s{index if index < SERIES else 1 + (index - 1) % (SERIES - 1)}"


def swatch(index: int) -> str:
    """A small picture of a series for a legend."""
    body = f'<line class="line {style(index)}" x1="1" y1="7" x2="29" y2="7"/>{_marker(index, 15, 7, "")}'
    return f'<svg class="swatch" viewBox="0 0 30 14" width="30" height="14" aria-hidden="true">{body}</svg>'


def _svg(name: str, title: str, text: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(text)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _scale(low: float, high: float, start: float, stop: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _grid(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale) -> str:
    out = []
    for value in ys:
        out.append(f'<line class="grid" x1="{_LEFT}" y1="{y(value):.1f}" x2="{_WIDTH - _RIGHT}" y2="{y(value):.1f}"/>')
        out.append(f'<text class="tick" x="{_LEFT - 8}" y="{y(value) + 4.5:.1f}" text-anchor="end">{value:g}</text>')
    for value in xs:
        out.append(
            f'<text class="tick" x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
        )
    return "".join(out)


def _axis_names(below: str, beside: str) -> str:
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    return (
        f'<text class="axis" x="{middle_x:g}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(below)}</text>'
        f'<text class="axis" transform="translate(13 {middle_y:g}) rotate(-90)" text-anchor="middle">{escape(beside)}</text>'
    )


def _marker(index: int, x: float, y: float, note: str, r: float = 3.5) -> str:
    """Circle, square, triangle, diamond, cross by series, with its numbers as a tooltip."""
    kind = 0 if index == 0 else (index - 1) % (SERIES - 1)
    title = f"<title>{escape(note)}</title>" if note else ""
    shapes = [
        f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}Z",
        f"M{x:.1f} {y - r * 1.2:.1f}l{r * 1.2:.1f} {r * 2.1:.1f}h{-r * 2.4:.1f}Z",
        f"M{x:.1f} {y - r * 1.3:.1f}l{r * 1.3:.1f} {r * 1.3:.1f}l{-r * 1.3:.1f} {r * 1.3:.1f}l{-r * 1.3:.1f} {-r * 1.3:.1f}Z",
        f"M{x - r:.1f} {y - r * 0.6:.1f}h{r * 2:.1f}v{r * 1.2:.1f}h{-r * 2:.1f}Z",
    ]
    return f'<path class="mark {style(index)}" d="{shapes[kind]}">{title}</path>'


def _nice_step(top: float) -> float:
    """1, 2 or 5 times a power of ten that gives four to eight steps; at least 1."""
    raw = max(1.0, top / 6)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
