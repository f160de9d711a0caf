"""The layers of docs/architecture.md, held by a test: imports go downward, no cycles, torch in train/ alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SRC = TESTS.parent / "src" / "cellfleet"
LEVELS = {
    "errors": 0, "config": 0, "canonical": 0, "_version": 0, "ports": 0, "wire": 0,
    "data": 1, "metrics": 1, "bundle": 1, "trust": 1, "monitor": 1, "lineage": 1, "_kernels": 1, "api_client": 1,
    "runtime": 2,
    "evaluate": 3,
    "train": 4, "optimize": 4, "device": 4, "fleet": 4, "serve": 4,
    "pipeline": 5,
    "demo": 6, "cli": 6,
}  # fmt: skip
SAME_LEVEL = {
    ("config", "errors"): "a wrong setting is an error with a hint",
    ("ports", "errors"): "the disk's and the network's errors are translated where they happen",
    ("demo", "cli"): "the journey types commands",
    ("wire", "errors"): "a message that cannot be understood is an error with a hint",
}
FOREIGN_ONLY_IN = {"torch": {"train"}, "monai": {"train"}, "mlflow": {"train"}, "typer": {"cli", "demo"}}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            yield from ((f"cellfleet.{a.name}" for a in node.names) if module == "cellfleet" else [module])


def edges() -> Iterator[tuple[Path, str, str]]:
    for file in sorted(SRC.rglob("*.py")):
        relative = file.relative_to(SRC).with_suffix("")
        yield from ((file, relative.parts[0], module) for module in imports_of(file))


def test_imports_go_downward_only() -> None:
    wrong = []
    for file, package, module in edges():
        target = package_of(module) if module.startswith("cellfleet") else ""
        if target in ("", "__init__", "__version__", package) or package == "__init__":
            continue
        if LEVELS[target] >= LEVELS[package] and (package, target) not in SAME_LEVEL:
            wrong.append(f"{file.relative_to(SRC)} ({package}, level {LEVELS[package]}) imports {module}")
    assert wrong == []


def test_exceptions_are_still_needed() -> None:
    used = {(package, package_of(module)) for _, package, module in edges() if module.startswith("cellfleet.")}
    assert set(SAME_LEVEL) <= used


def test_heavy_libraries_stay_in_their_rooms() -> None:
    wrong = [
        f"{file.relative_to(SRC)} imports {module}"
        for file, package, module in edges()
        if package not in FOREIGN_ONLY_IN.get(module.split(".")[0], {package})
    ]
    assert wrong == []


def test_no_cycle_between_modules() -> None:
    graph: dict[str, set[str]] = {}
    files = {
        ".".join(("cellfleet", *f.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__"): f
        for f in SRC.rglob("*.py")
    }
    for name, file in files.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {n.module or "" for n in top if isinstance(n, ast.ImportFrom)} | {
            a.name for n in top if isinstance(n, ast.Import) for a in n.names
        }
        graph[name] = {n for n in names if n in files and not name.startswith(n + ".") and n != name}
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> None:
        assert node not in path, " -> ".join((*path, node))
        if node not in done:
            for other in sorted(graph[node]):
                visit(other, (*path, node))
            done.add(node)

    for name in sorted(graph):
        visit(name, ())


def test_files_and_public_surfaces_stay_small() -> None:
    for file in SRC.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 500, file
    for init in SRC.glob("*/__init__.py"):
        names = re.findall(r'^    "(\w+)",$', init.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert len(names) <= 9, f"{init}: {len(names)} public names"


def test_the_order_of_syncing_stands_in_the_ports_alone() -> None:
    """Elsewhere a file is made durable by a function of ``cellfleet.ports.disk``."""
    wrong = [
        f"{file.relative_to(SRC)}:{node.lineno}"
        for file in sorted(SRC.rglob("*.py"))
        if file.parent.name != "ports"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("fsync", "fdatasync")
    ]
    assert wrong == []


def test_tests_use_what_is_public() -> None:
    """What a test needs of the product is its public behaviour, or an argument of a constructor."""
    wrong = [
        f"{file.relative_to(TESTS)}:{line} {text}"
        for file in sorted(TESTS.rglob("*.py"))
        for line, text in _private_uses(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert wrong == []


def _private_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr != "_kernels":
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cellfleet"):
            yield from ((node.lineno, a.name) for a in node.names if _is_private(a.name) and a.name != "_kernels")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "getattr", "delattr")):
            names = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from ((node.lineno, name) for name in names if _is_private(name))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize(
    "package",
    [
        "data",
        "metrics",
        "bundle",
        "lineage",
        "monitor",
        "wire",
        "trust",
        "runtime",
        "device.scheduling.scheduler",
        "ports",
        "config",
        "cli.main",
    ],
)
def test_a_device_imports_no_torch(package: str) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'monai', 'mlflow', 'jinja2', 'pyarrow', 'bioimageio', 'openvino', 'scipy', 'zarr'):\n"
        "    sys.modules[name] = None\n"
        f"import cellfleet.{package}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
