"""The catalog is complete, nothing is left over in it, and sentences of other parts find their pattern."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment
from jinja2.nodes import Call, Const, Name

import cellfleet.fleet
from cellfleet.fleet.pages.i18n import LANGUAGES, Translator, catalog, language_of
from cellfleet.fleet.pages.words import said

FLEET = Path(str(cellfleet.fleet.__file__)).parent
ARGUMENTS = {"_": 1, "N_": 1, "plural": 2}
SAME_IN_BOTH = {"AP@0.5", "mAP", "Dice"}
ZH = Translator("zh-TW")


def texts_of_templates() -> Iterator[tuple[str, str]]:
    for file in sorted((FLEET / "templates").glob("*.html")):
        for call in Environment(autoescape=True).parse(file.read_text(encoding="utf-8")).find_all(Call):
            if isinstance(call.node, Name):
                for argument in call.args[: ARGUMENTS.get(call.node.name, 0)]:
                    if isinstance(argument, Const):
                        yield argument.value, file.name


def texts_of_code() -> Iterator[tuple[str, str]]:
    for file in sorted((FLEET / "pages").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                f = node.func
                name = f.id if isinstance(f, ast.Name) else f.attr if isinstance(f, ast.Attribute) else ""
                for argument in node.args[: ARGUMENTS.get(name, 0)]:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield argument.value, file.name


def test_every_text_has_a_translation_and_none_is_left_over() -> None:
    texts = {**dict(texts_of_templates()), **dict(texts_of_code())}
    assert len(texts) > 300
    known = {k for k in catalog("zh-TW") if not k.startswith("~")}
    missing = {t: where for t, where in texts.items() if t not in known and t not in SAME_IN_BOTH}
    assert missing == {}
    assert known - set(texts) == set()


def test_translations_use_the_values_of_their_texts() -> None:
    wrong = [
        key
        for key, target in catalog("zh-TW").items()
        if not set(re.findall(r"\{(\w+)\}", target)) <= set(re.findall(r"\{(\w+)\}", key))
        or (not key.startswith("~") and set(re.findall(r"\{(\w+)\}", target)) != set(re.findall(r"\{(\w+)\}", key)))
    ]
    assert wrong == []
    assert [k for k, v in catalog("zh-TW").items() if not v.strip()] == []


def test_patterns_are_of_sentences_that_other_parts_say() -> None:
    said_by = "".join(f.read_text(encoding="utf-8") for f in sorted(FLEET.parent.rglob("*.py")))
    missing = []
    for key in catalog("zh-TW"):
        if key.startswith("~"):
            longest = max(re.split(r"\{\w+\}|[:;.]", key[1:]), key=len)
            if longest.strip() not in said_by:
                missing.append(key)
    assert missing == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Boston-8 was not heard: not heard since 2026-03-02 09:00:00 UTC; 60 s are tolerated. "
         "2 failures in phase 2; 1 is tolerated.",
         "Boston-8 失聯：自 2026-03-02 09:00:00 UTC 起沒有回報；容許 60 秒。第 2 階段有 2 次失敗，容許 1 次。"),
        ("3 of 9 instruments of phase 2 have succeeded; 9 must", "第 2 階段的 9 台裝置中有 3 台成功，須有 9 台"),
        ("there is no deployment 9", "沒有 deployment 9"),
        ("something that nobody foresaw", "something that nobody foresaw"),
        ("", ""),
    ],
)  # fmt: skip
def test_sentences_of_other_parts(text: str, expected: str) -> None:
    assert said(text, ZH) == expected
    assert said(text, Translator("en")) == text


@pytest.mark.parametrize(
    ("asked", "cookie", "accept", "expected"),
    [
        ("zh-TW", "en", "en", "zh-TW"),
        ("", "zh-TW", "en", "zh-TW"),
        ("xx", "yy", "zh-TW,zh;q=0.9,en;q=0.8", "zh-TW"),
        ("", "", "en-GB, zh;q=0.9", "en"),
        ("", "", "fr;q=1, zh-Hant;q=0.4, en;q=0.2", "zh-TW"),
        ("", "", "zh;q=0, de", "en"),
        ("", "", "zh;q=rubbish", "en"),
        ("", "", "", "en"),
    ],
)
def test_the_language_is_the_readers(asked: str, cookie: str, accept: str, expected: str) -> None:
    assert language_of(asked, cookie, accept) == expected
    assert expected in LANGUAGES
