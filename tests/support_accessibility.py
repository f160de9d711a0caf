"""What assistive programs and small screens need, computed in the page itself: names, headings, contrast, targets."""

from __future__ import annotations

from pathlib import Path

CHECKS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
"""JavaScript that returns the problems of the page as a JSON list of texts."""
