"""The table of codes: the source uses each code with the values of its template, the page of contracts lists it."""

from __future__ import annotations

import ast
import importlib.util
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import cellfleet
from cellfleet.wire.reason_texts import TEXTS

SOURCE = Path(cellfleet.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
FILES = [f for f in sorted(SOURCE.rglob("*.py")) if f.name != "reason_texts.py"]
MAKERS = {"because", "detailed"}


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
                yield f"{file.relative_to(SOURCE)}:{node.lineno}", node


def test_every_call_gives_the_values_of_its_template() -> None:
    wrong, literal = [], 0
    for where, call in calls():
        code = call.args[0]
        if not isinstance(code, ast.Constant) or not isinstance(code.value, str):
            continue
        literal += 1
        given = {k.arg for k in call.keywords} | ({"parts"} if len(call.args) > 1 else set())
        if code.value not in TEXTS:
            wrong.append(f"{where}: unknown code {code.value}")
        elif None not in given and given != placeholders(TEXTS[code.value]):
            wrong.append(f"{where}: {code.value} gets {sorted(map(str, given))}")
    assert wrong == []
    assert literal > 80


def test_the_source_uses_every_code() -> None:
    used = {
        node.value
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(TEXTS) - used == set()


def test_templates_are_different_and_have_named_placeholders() -> None:
    assert len(set(TEXTS.values())) == len(TEXTS)
    assert [t for t in TEXTS.values() if not all(p.isidentifier() for p in placeholders(t))] == []


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "fleet.md").read_text(encoding="utf-8")


def test_the_page_of_contracts_lists_every_code(page: str) -> None:
    spec = importlib.util.spec_from_file_location("make_reasons", DOCS / "make_reasons.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.page(page) == page, "run python docs/make_reasons.py"
    assert made.table() in page
