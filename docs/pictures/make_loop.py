"""Draws docs/pictures/loop.svg and loop.zh-TW.svg: the circle from data to instruments and back."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
W, H = 960, 330
BOX_W, BOX_H = 124, 62
TOP, BOTTOM = 56, 206

# (name, line below, is built)
WORDS = {
    "loop.svg": (
        [
            ("data", "versions by digest", True),
            ("train", "seeded, resumable", True),
            ("optimise", "INT8 behind a gate", True),
            ("bundle", "describes, tests itself", True),
            ("evaluate", "report, signed record", True),
            ("release", "signed, counted", True),
        ],
        [
            ("review", "people correct", False),
            ("drift", "alerts", False),
            ("segment", "masks, tables, origin", True),
            ("instruments", "self-test, roll back", True),
            ("deployment", "phases, halt", True),
        ],
        ("in this version", "to come"),
    ),
    "loop.zh-TW.svg": (
        [
            ("資料", "以摘要為版本", True),
            ("訓練", "可重現、可續訓", True),
            ("最佳化", "INT8 須過關卡", True),
            ("套件包", "自我描述與測試", True),
            ("評估", "報告與簽章紀錄", True),
            ("發行", "簽章、計數", True),
        ],
        [
            ("複查", "由人修正", False),
            ("漂移", "警示", False),
            ("分割", "遮罩、表格、譜系", True),
            ("儀器", "自測、回復", True),
            ("部署", "分階段、可中止", True),
        ],
        ("本版已有", "後續版本"),
    ),
}


def picture(name: str) -> str:
    """One SVG; readable on light and on dark pages."""
    top, bottom, (now, later) = WORDS[name]
    xs = [20 + i * (BOX_W + 35) for i in range(len(top))]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" font-family="system-ui, sans-serif" '
        'role="img" aria-label="the loop of cellfleet">',
        "<style>.b{fill:#0b7285;stroke:#0b7285}.p{fill:#f8f9fa;stroke:#868e96;stroke-dasharray:5 4}"
        ".bt{fill:#fff;font-size:16px;font-weight:600}.bs{fill:#e3fafc;font-size:10.5px}"
        ".pt{fill:#343a40;font-size:16px;font-weight:600}.ps{fill:#495057;font-size:10.5px}"
        ".l{stroke:#868e96;stroke-width:2;fill:none}.k{fill:#868e96;font-size:13px}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#868e96"/></marker></defs>',
    ]
    for i, box in enumerate(top):
        parts += _box(xs[i], TOP, *box)
        if i:
            parts.append(_arrow(xs[i - 1] + BOX_W, TOP + BOX_H / 2, xs[i] - 3, TOP + BOX_H / 2))
    for i, box in enumerate(bottom):
        parts += _box(xs[i] + 0.5 * (BOX_W + 35), BOTTOM, *box)
        if i:
            left = xs[i] + 0.5 * (BOX_W + 35)
            parts.append(_arrow(left, BOTTOM + BOX_H / 2, left - 35 + 3, BOTTOM + BOX_H / 2))
    middle = BOX_W / 2
    parts.append(_arrow(xs[5] + middle, TOP + BOX_H, xs[4] + 0.5 * (BOX_W + 35) + middle + 20, BOTTOM - 3))
    parts.append(_arrow(xs[0] + 0.5 * (BOX_W + 35) + middle - 20, BOTTOM, xs[0] + middle, TOP + BOX_H + 3))
    parts += [
        f'<rect class="b" x="340" y="298" width="14" height="14" rx="3"/><text class="k" x="362" y="310">{escape(now)}</text>',
        f'<rect class="p" x="520" y="298" width="14" height="14" rx="3"/><text class="k" x="542" y="310">{escape(later)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(x: float, y: float, title: str, line: str, built: bool) -> list[str]:
    k = "b" if built else "p"
    centre = x + BOX_W / 2
    return [
        f'<rect class="{k}" x="{x:g}" y="{y}" width="{BOX_W}" height="{BOX_H}" rx="9" stroke-width="1.5"/>',
        f'<text class="{k}t" x="{centre:g}" y="{y + 27}" text-anchor="middle">{escape(title)}</text>',
        f'<text class="{k}s" x="{centre:g}" y="{y + 46}" text-anchor="middle">{escape(line)}</text>',
    ]


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<path class="l" d="M{x0:g} {y0:g}L{x1:g} {y1:g}" marker-end="url(#a)"/>'


if __name__ == "__main__":
    for name in WORDS:
        (HERE / name).write_text(picture(name), encoding="utf-8")
    sys.stdout.write(f"wrote {', '.join(WORDS)}\n")
