"""The languages of the pages: English as written in the code, and catalogs keyed by the English text.

>>> language_of("", "", "fr, zh-Hant;q=0.8, en;q=0.5")
'zh-TW'
>>> Translator("zh-TW")("Deployments")
'部署'
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from markupsafe import Markup

LANGUAGES = {"en": "English", "zh-TW": "正體中文"}
"""Codes as in the ``lang`` attribute, with the name that each language has for itself."""
_CATALOGS = {"zh-TW": "zh_TW.json"}


@cache
def catalog(language: str) -> Mapping[str, str]:
    """English text -> text of that language; empty for English."""
    name = _CATALOGS.get(language)
    if name is None:
        return {}
    text = resources.files("cellfleet.fleet").joinpath("locale", name).read_text(encoding="utf-8")
    messages: dict[str, str] = json.loads(text)
    return messages


@dataclass(frozen=True)
class Translator:
    """Gives texts in one language. Values go in by name: ``_("{n} frames", n=3)``."""

    language: str = "en"

    def __call__(self, text: str, **values: Any) -> str:
        """The text in this language; with a value of HTML (Markup), HTML whose other values are escaped."""
        return _filled(catalog(self.language).get(text, text), values)

    def plural(self, one: str, many: str, n: int, **values: Any) -> str:
        """``one`` for exactly one, ``many`` otherwise. Languages without a plural have ``many`` in their catalog only."""
        messages = catalog(self.language)
        text = (one if n == 1 else many) if self.language == "en" else messages.get(many, many)
        return _filled(text, {"n": f"{n:,}", **values})


def language_of(asked: str, cookie: str, accept: str) -> str:
    """The language to use: given in the address, else remembered, else what the browser prefers, else English."""
    for code in (asked, cookie):
        if code in LANGUAGES:
            return code
    for tag in _preferred(accept):
        if tag == "zh" or tag.startswith("zh-"):
            return "zh-TW"
        if tag == "en" or tag.startswith("en-"):
            return "en"
    return "en"


def _preferred(accept: str) -> list[str]:
    weighed = []
    for part in accept.split(",")[:20]:
        tag, _, q = part.strip().partition(";q=")
        try:
            weight = float(q) if q else 1.0
        except ValueError:
            weight = 0.0
        if tag and 0 < weight <= 1:
            weighed.append((weight, tag.strip().lower()))
    return [tag for _, tag in sorted(weighed, key=lambda x: -x[0])]


def _filled(text: str, values: Mapping[str, Any]) -> str:
    if not values:
        return text
    if any(isinstance(v, Markup) for v in values.values()):
        return Markup(text).format(**values)
    return text.format(**values)
