"""The catalog is complete and nothing is left over in it; reasons are translated by their codes."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment
from jinja2.nodes import Call, Const, Name

import cellfleet.fleet
from cellfleet.fleet.pages.formatting import reason_text, stored_reason_text
from cellfleet.fleet.pages.i18n import LANGUAGES, Translator, catalog, language_of
from cellfleet.fleet.refusals import TITLES
from cellfleet.wire.reason import Reason, because, english, text_reason
from cellfleet.wire.reason_texts import TEXTS

FLEET = Path(str(cellfleet.fleet.__file__)).parent
ARGUMENTS = {"_": 1, "N_": 1, "plural": 2}
SAME_IN_BOTH = {"AP@0.5", "mAP", "Dice", "{text}", "{parts}", "{detail}"}
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
    texts |= dict.fromkeys(TITLES.values(), "refusals.py") | {text: code for code, text in TEXTS.items()}
    assert len(texts) > 300
    known = set(catalog("zh-TW"))
    missing = {t: where for t, where in texts.items() if t not in known and t not in SAME_IN_BOTH}
    assert missing == {}
    assert known - set(texts) == set()


def placeholders(text: str) -> list[tuple[str, str]]:
    """Names and formats, in the order of the names."""
    return sorted((name, spec or "") for _, name, spec, _ in string.Formatter().parse(text) if name is not None)


def test_translations_use_the_values_of_their_texts() -> None:
    assert [key for key, target in catalog("zh-TW").items() if placeholders(target) != placeholders(key)] == []
    assert [k for k, v in catalog("zh-TW").items() if not v.strip()] == []


MEMORY = because("probation.memory", memory_mb=1482.4, limit_mb=1200)
SLOWER = because("probation.slower", ms=3216.0, before_ms=794.0, factor=2.0)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (because("rollout.progress", phase=2, good=3, size=9, needed=9), "第 2 階段：9 台儀器中有 3 台成功，須有 9 台"),
        (because("problem.not-found", what="deployment 9"), "找不到 deployment 9"),
        (because("several", MEMORY, text_reason("as {it} says")), "分割器使用 1482 MB 記憶體，上限 1200 MB；as {it} says"),
        (because("rollout.halt-count", because("rollout.member-rolled-back", MEMORY, SLOWER, name="XYZ-1"),
                 phase=1, failures=1, limit=0),
         "XYZ-1 已回復前一版本：分割器使用 1482 MB 記憶體，上限 1200 MB；每個影格需 3216 毫秒，先前為 794 毫秒；上限 2 倍。"
         "第 1 階段有 1 台失敗，上限 0 台"),
        (because("selftest.failed", because("selftest.variant", because("selftest.ap50", ap50=0.0081, limit=0.4),
                                            variant="onnxruntime/fp32")),
         "自我測試：onnxruntime/fp32：在本身的黃金影格上 AP@0.5 為 0.008，下限 0.400"),
        (None, ""),
    ],
)  # fmt: skip
def test_reasons_are_translated_by_code(reason: Reason | None, expected: str) -> None:
    assert reason_text(reason, ZH) == expected
    assert reason_text(reason, Translator("en")) == english(reason)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (MEMORY.model_dump(mode="json"), "分割器使用 1482 MB 記憶體，上限 1200 MB"),
        (None, "as an older agent says"),
        ({"code": "of-a-newer.agent", "values": {"n": 1}}, "as an older agent says"),
        ({"code": "several", "parts": [{"code": "of-a-newer.agent"}]}, "as an older agent says"),
        ({"code": "probation.memory", "values": {"memory_mb": 1}}, "as an older agent says"),
        ({"code": "probation.memory", "values": "rubbish"}, "as an older agent says"),
        (["rubbish"], "as an older agent says"),
    ],
)
def test_what_has_no_data_that_is_known_is_shown_as_its_text(data: object, expected: str) -> None:
    assert stored_reason_text("as an older agent says", data, ZH) == expected


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
