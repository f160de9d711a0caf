"""Draws docs/agent.svg, the agent's life, from its transition table: ``python docs/make_agent_svg.py``."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from cellfleet.device.update.state_machine import ACTION_TEXTS, BEFORE_ACTIVATION, STATES, TABLE
from cellfleet.wire.states import UpdateState

TARGET = Path(__file__).with_name("agent.svg")
WIDTH, BOX_W, BOX_H, STEP = 860, 330, 52, 92
LEFT, TOP = 300, 56
FORWARD = (
    "update-wanted",
    "trusted",
    "downloaded",
    "installed",
    "passed",
    "may-activate",
    "activated",
    "good",
    "committed",
)
_STYLE = """
text { font-family: 'DejaVu Sans', Verdana, sans-serif; font-size: 13px; fill: #1b2a38 }
.name { font-weight: bold; font-size: 15px }
.what { font-size: 11.5px; fill: #44586b }
.box { fill: #eef4f9; stroke: #3b6e93; stroke-width: 1.5 }
.live { fill: #fdf3e1; stroke: #a5711d }
.bad { fill: #fbe9e7; stroke: #a83a2e }
.go { stroke: #3b6e93; stroke-width: 1.5; fill: none }
.back { stroke: #7c8a97; stroke-width: 1.2; fill: none; stroke-dasharray: 4 3 }
.fail { stroke: #a83a2e; stroke-width: 1.5; fill: none }
"""


def svg() -> str:
    """The drawing."""
    height = TOP + STEP * len(STATES) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t d">',
        '<title id="t">The agent of an instrument</title>',
        f'<desc id="d">{escape(_description())}</desc>',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#3b5366"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="28" class="name">The agent: states, and the events that lead from one to the next</text>',
    ]
    parts += [_box(state) for state in STATES]
    parts += _forward()
    parts += _back()
    parts += _failing()
    return "\n".join([*parts, "</svg>"]) + "\n"


def _y(state: UpdateState) -> int:
    return TOP + STEP * STATES.index(state)


def _box(state: UpdateState) -> str:
    kind = (
        "box" if state in BEFORE_ACTIVATION or state == "idle" else "bad box" if state == "rolling-back" else "live box"
    )
    kind = " ".join(reversed(kind.split()))
    y = _y(state)
    return (
        f'<rect x="{LEFT}" y="{y}" width="{BOX_W}" height="{BOX_H}" rx="7" class="{kind}"/>'
        f'<text x="{LEFT + 14}" y="{y + 22}" class="name">{state}</text>'
        f'<text x="{LEFT + 14}" y="{y + 41}" class="what">{escape(ACTION_TEXTS[state])}</text>'
    )


def _forward() -> list[str]:
    """Arrows from a state to the one below it."""
    out = []
    for source, moves in TABLE.items():
        for event, target in moves.items():
            if STATES.index(target) == STATES.index(source) + 1 and event in FORWARD:
                x, y = LEFT + 60, _y(source) + BOX_H
                out.append(f'<path d="M{x} {y} V{_y(target) - 2}" class="go" marker-end="url(#a)"/>')
                out.append(f'<text x="{x + 10}" y="{y + 25}">{event}</text>')
    return out


def _back() -> list[str]:
    """On the left: what leads back to idle, on one line up."""
    rail, top = 70, _y("idle") + BOX_H // 2
    sources = [s for s, moves in TABLE.items() if "idle" in moves.values()]
    lowest = max(_y(s) for s in sources) + BOX_H // 2
    out = [f'<path d="M{rail} {lowest} V{top} H{LEFT - 2}" class="back" marker-end="url(#a)"/>']
    for source in sources:
        y = _y(source) + BOX_H // 2
        events = [e for e, target in TABLE[source].items() if target == "idle"]
        out.append(f'<path d="M{LEFT} {y} H{rail}" class="back"/>')
        out.append(f'<text x="{rail + 8}" y="{y - 6}" class="what">{", ".join(events)}</text>')
    return out


def _failing() -> list[str]:
    """On the right: what leads to the rollback."""
    out = []
    sources = [s for s, moves in TABLE.items() if "rolling-back" in moves.values()]
    for i, source in enumerate(sources):
        event = next(e for e, target in TABLE[source].items() if target == "rolling-back")
        x, right = LEFT + BOX_W + 60 + 90 * (len(sources) - 1 - i), LEFT + BOX_W
        y, end = _y(source) + BOX_H // 2, _y("rolling-back") + 16 + 18 * (len(sources) - 1 - i)
        out.append(f'<path d="M{right} {y} H{x} V{end} H{right + 2}" class="fail" marker-end="url(#a)"/>')
        out.append(f'<text x="{right + 10}" y="{y - 6}" class="what">{event}</text>')
    return out


def _description() -> str:
    moves = [f"{s}, {e}: {t}" for s, events in TABLE.items() for e, t in events.items()]
    return "; ".join(moves) + "."


def main() -> None:
    """Write the file."""
    TARGET.write_text(svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
