"""The documentation is what the program is: commands, settings, links, pictures, file names, examples."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import cellfleet
from cellfleet.cli.main import COMMANDS, build_app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
READMES = ("README.md", "README.zh-TW.md")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_lines(text: str) -> Iterator[str]:
    """Lines of fenced blocks."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S):
        yield from block.splitlines()


def commands_in(text: str) -> list[list[str]]:
    """The cellfleet commands that a page shows, as argument lists."""
    lines = (line.removeprefix("$ ").strip() for line in code_lines(text))
    return [shlex.split(line)[1:] for line in lines if line.startswith("cellfleet ")]


def find_command(argv: list[str]) -> tuple[Any, list[str]]:
    """The program's command for an argument list, and the rest of the list."""
    assert argv[0] in COMMANDS, f"there is no command {argv[0]}"
    group: Any = typer.main.get_command(build_app(argv[0]))
    command, rest = group.commands[argv[0]], argv[1:]
    while getattr(command, "commands", None):
        assert rest, f"{argv} names no command of the group"
        assert rest[0] in command.commands, f"{argv}: there is no {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def load_script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_page_is_current() -> None:
    reference = load_script(ROOT / "docs" / "make_reference.py")
    assert text_of("docs/cli.md") == reference.page(), "run `python docs/make_reference.py`"


def test_the_schema_of_the_segmenter_protocol_is_current() -> None:
    script = load_script(ROOT / "docs" / "make_segmenter_schema.py")
    assert text_of("docs/segmenter.schema.json") == script.schema(), "run `python docs/make_segmenter_schema.py`"


@pytest.mark.parametrize("name", [*READMES, "docs/architecture.md", "CONTRIBUTING.md"])
def test_commands_on_a_page_are_real(name: str) -> None:
    for argv in commands_in(text_of(name)):
        if argv[0].startswith("-"):
            continue
        command, rest = find_command(argv)
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        used = {part.partition("=")[0] for part in rest if part.startswith("-") and not re.match(r"-\d", part)}
        assert used <= known, f"{name}: cellfleet {shlex.join(argv)}: {sorted(used - known)}"


def test_readme_shows_every_command() -> None:
    shown = {argv[0] for argv in commands_in(text_of("README.md"))}
    assert set(COMMANDS) <= shown


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md", "docs/architecture.md"])
def test_make_targets_on_a_page_are_real(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", text_of("Makefile"), flags=re.M))
    used = set(
        re.findall(
            r"(?<!\w)make ([a-z]+)(?=[`\s])",
            "\n".join([*code_lines(text_of(name)), *re.findall(r"`[^`\n]+`", text_of(name))]),
        )
    )
    assert used <= targets
    if name in READMES:
        assert {"demo", "test"} <= used


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path = target.partition("#")[0]
        if not path or "://" in path:
            continue
        assert (page.parent / path).exists(), f"{page.name}: {target} is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_page_names_a_machine(page: Path) -> None:
    assert "@@" not in page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|opt|mnt|Users)/", page.read_text(encoding="utf-8"))


def test_both_readmes_say_the_same() -> None:
    """The same sections, commands, outputs, tables and pictures; only the language differs."""
    english, chinese = (text_of(name) for name in READMES)
    for pattern in (r"^#+ ", r"^\|", r"^- ", r"!\["):
        assert len(re.findall(pattern, english, flags=re.M)) == len(re.findall(pattern, chinese, flags=re.M)), pattern
    assert commands_in(english) == commands_in(chinese)
    pictures = [re.findall(r"!\[[^]]*\]\(([^)]+)\)", text.replace(".zh-TW.svg", ".svg")) for text in (english, chinese)]
    assert pictures[0] == pictures[1]
    numbers = r"\d+\.\d+"
    assert sorted(re.findall(numbers, english)) == sorted(re.findall(numbers, chinese))


def test_the_chinese_readme_is_traditional_chinese() -> None:
    chinese = text_of("README.zh-TW.md")
    assert len(re.findall(r"[\u4e00-\u9fff]", chinese)) > 500
    simplified = set("训练图这个们为对应该说时间帧权数据") - set("據數")
    assert not simplified & set(chinese)


def test_architecture_names_every_package_and_only_files_that_exist() -> None:
    text = text_of("docs/architecture.md")
    packages = [m.name for m in pkgutil.iter_modules(cellfleet.__path__) if m.ispkg]
    assert not [p for p in packages if f"`{p}`" not in text]
    for name in re.findall(r"`((?:src|tests|cpp|docs|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"docs/architecture.md names {name}"
    for name in re.findall(rf"`((?:{'|'.join(packages)})/[\w/]+\.py)`", text):
        assert (ROOT / "src" / "cellfleet" / name).is_file(), f"docs/architecture.md names {name}"


def operations_in(table: str) -> set[tuple[str, str]]:
    """Method and path of the API table in docs/fleet.md: ``GET `/a/{id}/b`, `c` `` is GET /a/{}/b and GET /a/{}/c."""
    found: set[tuple[str, str]] = set()
    for row in re.findall(r"^\| [a-z, ]+ \| (.*?) \| ", table, flags=re.M):
        methods: list[str] = []
        path, fresh = "", True
        for method, text in re.findall(r"\b(GET|HEAD|POST|PUT|PATCH|DELETE)\b|`([^`]+)`", row):
            if method:
                methods, fresh = ([*methods, method] if fresh else [method]), True
                continue
            fresh = False
            text = "/uploads/{}/parts/{}" if text == "<part url>" else re.sub(r"{[^}]*}", "{}", text)
            path = text if text.startswith("/") else f"{path.rpartition('/')[0]}/{text}"
            paths = [path] if "[" not in path else [path.partition("[")[0], path.translate({91: None, 93: None})]
            below = not path.startswith(("/healthz", "/readyz", "/version", "/v1/", "/api/"))
            found |= {(m, f"/api/v1{p}" if below else p) for m in methods for p in paths}
    return found


def test_the_contracts_name_every_operation_of_the_api(tmp_path: Path) -> None:
    from cellfleet.config import load_project
    from cellfleet.fleet.app import create_app
    from cellfleet.fleet.context import open_context

    context = open_context(load_project(tmp_path, environ={}))
    try:
        described = create_app(context).openapi()["paths"]
    finally:
        context.close()
    there = {(m.upper(), re.sub(r"{[^}]*}", "{}", path)) for path, item in described.items() for m in item}
    told = operations_in(text_of("docs/fleet.md").partition("## API")[2].partition("## Rollout")[0])
    assert told - there == {("GET", "/api/v1/openapi.json")}
    assert there - told == set()


def test_every_decision_is_numbered_and_has_its_parts() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    for number, page in enumerate(pages, 1):
        text = page.read_text(encoding="utf-8")
        assert page.name.startswith(f"{number:04d}-")
        assert text.startswith(f"# {number}. ")
        assert [h for h in ("Status:", "## Context", "## Decision", "## Consequences") if h not in text] == []


def test_the_changelog_has_the_version() -> None:
    assert f"## [{cellfleet.__version__}]" in text_of("CHANGELOG.md")


def packages() -> list[str]:
    found = [m.name for m in pkgutil.iter_modules(cellfleet.__path__, "cellfleet.") if m.ispkg]
    return ["cellfleet", *sorted(found)]


@pytest.mark.parametrize("name", packages())
def test_packages_explain_themselves(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, name
    assert len(getattr(module, "__all__", [])) <= 12
    missing = [n for n in getattr(module, "__all__", []) if not hasattr(module, n)]
    assert not missing


@pytest.mark.parametrize("name", packages())
def test_examples_in_packages_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def public_functions() -> Iterator[tuple[str, Any]]:
    """Functions and methods of what the packages' ``__all__`` name."""
    for package in packages():
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            members = {name: value} if inspect.isfunction(value) else vars(value) if inspect.isclass(value) else {}
            for member, function in members.items():
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function) and not member.startswith("_"):
                    yield f"{package}.{function.__qualname__}", function


def test_public_functions_explain_their_arguments() -> None:
    """Two or more arguments: ``Args:``; a result: ``Returns:``."""
    wrong = []
    for name, function in public_functions():
        signature = inspect.signature(function)
        if len([p for p in signature.parameters if p not in ("self", "cls")]) < 2:
            continue
        text = function.__doc__ or ""
        has_result = signature.return_annotation not in (None, "None")
        if "Args:" not in text or (has_result and not {"Returns:", "Yields:"} & set(text.split())):
            wrong.append(name)
    assert wrong == []


def test_every_error_is_in_the_tree_on_top() -> None:
    from cellfleet import errors

    tree = errors.__doc__ or ""
    own = [n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)]
    assert not [n for n in own if n not in tree]
