"""Writes the table of reasons in docs/fleet.md from ``cellfleet.wire.reason_texts``: ``python docs/make_reasons.py``."""

from __future__ import annotations

import re
from pathlib import Path

from cellfleet.wire.reason_texts import TEXTS

PAGE = Path(__file__).with_name("fleet.md")
HEAD = "| code | English text |\n| --- | --- |\n"


def table() -> str:
    """The table as Markdown, in the order of the codes."""
    return HEAD + "".join(f"| `{code}` | {text} |\n" for code, text in sorted(TEXTS.items()))


def page(text: str) -> str:
    """The page with a new table."""
    return re.sub(re.escape(HEAD) + r"(\|.*\n)*", lambda _: table(), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
