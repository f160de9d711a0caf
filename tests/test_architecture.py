"""The layers of docs/architecture.md, held by a test: imports go downward, no cycles, torch in train/ alone."""

from __future__ import annotations

import ast
import functools
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
    ("cli", "demo"): "`cellfleet demo` runs the journey",
    ("wire", "errors"): "a message that cannot be understood is an error with a hint",
}
FOREIGN_ONLY_IN = {"torch": {"train"}, "monai": {"train"}, "mlflow": {"train"}, "typer": {"cli"}}

# Within the two packages that hold a whole program each: what stands further down knows nothing of what stands above it.
ROOMS: dict[str, dict[str, tuple[int, str]]] = {
    "device": {
        "interfaces": (0, "types and protocols where the parts meet; they need none of the parts"),
        "system": (0, "the host: folders, locks, logs, identity"),
        "slots": (1, "files of the installed artifacts"),
        "camera": (1, "puts frames on the disk, and needs neither segmenter nor server for it"),
        "segmenter": (1, "a program of its own behind the segmenter protocol; other programs take its place"),
        "scheduling": (2, "reads the camera's frames, starts the segmenters of slots"),
        "server": (2, "knows messages, and not what an update is made of"),
        "update": (3, "decides about slots with all of the above"),
        "launcher": (4, "starts the processes"),
        "provisioning": (4, "before there is an agent"),
        "doctor": (5, "looks at everything"),
    },
    "fleet": {
        "refusals": (0, "errors that know no HTTP library"),
        "store": (0, "the tables"),
        "openapi_examples": (0, "data of the API's description"),
        "middleware": (0, "limits of any request"),
        "blobs": (1, "content by digest"),
        "problems": (1, "errors to answers"),
        "openapi": (1, "the API's description"),
        "context": (2, "what every service gets"),
        "audit": (3, "every service records what it changes"),
        "byte_ranges": (3, "answers with content, for API and pages"),
        "people": (4, "every service asks who may"),
        "trust_repository": (4, "the metadata that the server holds"),
        "releases": (5, "are published by people into the trust repository"),
        "provisioning": (5, "devices, groups, claims, alarms"),
        "ingest": (6, "what devices send"),
        "rollout": (6, "what devices are to run; reports raise alarms of provisioning"),
        "lineage": (6, "reads releases and devices"),
        "ticker": (7, "what services do by themselves"),
        "api": (8, "services as JSON"),
        "pages": (9, "services as pages; signing in is that of the API"),
        "app": (10, "puts API and pages together"),
        "serve": (11, "runs the application"),
    },
}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def modules() -> dict[str, Path]:
    """Every module by its name."""
    names = {f: ".".join(("cellfleet", *f.relative_to(SRC).with_suffix("").parts)) for f in sorted(SRC.rglob("*.py"))}
    return {name.removesuffix(".__init__"): f for f, name in names.items()}


MODULES = modules()


@functools.cache
def import_nodes(file: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Every import of a file, those inside functions and for types alone included."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return tuple(n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom))


def imports_of(file: Path) -> Iterator[str]:
    """Modules that a file imports; ``from package import module`` is that module."""
    for node in import_nodes(file):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        else:
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            names = (f"{module}.{a.name}" for a in node.names)
            yield from (n if n in MODULES or module == "cellfleet" else module for n in names)


def edges() -> Iterator[tuple[Path, str, str]]:
    for file in MODULES.values():
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


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_imports_go_downward_within_a_package(package: str) -> None:
    rooms, wrong = ROOMS[package], []
    for name, file in MODULES.items():
        mine = name.split(".")[2:3]
        if package_of(name) != package or not mine:
            continue
        for module in imports_of(file):
            other = module.split(".")[2:3]
            if not module.startswith(f"cellfleet.{package}.") or other == mine:
                continue
            if rooms[other[0]][0] >= rooms[mine[0]][0]:
                wrong.append(f"{name} imports {module}")
    assert wrong == []


def test_the_table_of_rooms_names_what_there_is() -> None:
    for package, rooms in ROOMS.items():
        there = {p.stem for p in (SRC / package).iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
        assert set(rooms) == there - {"__init__"}, package


def test_heavy_libraries_stay_in_their_rooms() -> None:
    wrong = [
        f"{file.relative_to(SRC)} imports {module}"
        for file, package, module in edges()
        if package not in FOREIGN_ONLY_IN.get(module.split(".")[0], {package})
    ]
    assert wrong == []


def has_face(package: str) -> bool:
    """The package's ``__init__`` gives names of its modules to others."""
    file = MODULES.get(package)
    return file is not None and file.name == "__init__.py" and any(imports_of(file))


def test_no_module_imports_the_face_of_its_own_package() -> None:
    """A package's own modules name each other, so that the face can be made of them in any order."""
    wrong = []
    for name, file in MODULES.items():
        parents = {".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1)}
        faces = {p for p in parents if has_face(p)}
        for node in import_nodes(file):
            if isinstance(node, ast.ImportFrom) and node.module in faces and file.name != "__init__.py":
                names = {a.name for a in node.names} - {"_kernels"}  # compiled, so it is no name of the face
                wrong += [f"{name}:{node.lineno} from {node.module} import {n}" for n in sorted(names)]
    assert wrong == []


def graph_of_modules() -> dict[str, set[str]]:
    """Imports within cellfleet, those inside functions and for types alone counted in."""
    return {name: {m for m in imports_of(file) if m in MODULES} - {name} for name, file in MODULES.items()}


def assert_no_cycle(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> None:
        assert node not in path, " -> ".join((*path[path.index(node) :], node))
        if node not in done:
            for other in sorted(graph.get(node, ())):
                visit(other, (*path, node))
            done.add(node)

    for name in sorted(graph):
        visit(name, ())


def test_no_cycle_between_modules() -> None:
    assert_no_cycle(graph_of_modules())


def test_no_cycle_between_sub_packages() -> None:
    folders = {name for name, file in MODULES.items() if file.name == "__init__.py" and name.count(".") == 2}
    graph: dict[str, set[str]] = {name: set() for name in folders}
    for name, imported in graph_of_modules().items():
        mine, others = (
            {".".join(n.split(".")[:3]) for n in names} & folders for names in ({name}, imported)
        )  # fmt: skip
        for folder in mine:
            graph[folder] |= others - {folder}
    assert_no_cycle(graph)


def test_a_cycle_is_found() -> None:
    with pytest.raises(AssertionError, match="b -> c -> b"):
        assert_no_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})


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


COVERED_BY = {
    "camera/test_acquisition": (
        "camera/frame_store camera/heartbeat camera/process camera/replay camera/source camera/watch_folder"
    ),
    "update/test_policy": "camera/inhibit_lease",
    "scheduling/test_scheduler": (
        "scheduling/assignment scheduling/dispatch scheduling/downtime scheduling/outcome_recorder scheduling/pinning "
        "scheduling/selftest_runner scheduling/worker scheduling/worker_pool system/error_reasons interfaces"
    ),
    "scheduling/test_experiments": "scheduling/experiment_store scheduling/pins",
    "scheduling/test_scheduler_killed": "scheduling/segmenter_command",
    "segmenter/test_service": "segmenter/main segmenter/thumbnails",
    "test_provisioning": "system/home system/identity",
    "test_launcher": "system/parent_watchdog",
    "update/test_agent": (
        "update/actions update/install_requests update/reported_state update/status_file update/status_reporter"
    ),
    "cli:instrument/test_device": "update/agent_factory update/install update/process",
}
"""Modules of ``device`` without a test file of their own: the test file that runs them through their callers."""


def test_tests_mirror_the_source() -> None:
    covered = {module for modules in COVERED_BY.values() for module in modules.split()}
    for test in COVERED_BY:
        place, _, name = test.rpartition(":")
        assert (TESTS / (place or "device") / f"{name}.py").is_file(), test
    wrong = []
    for file in sorted((SRC / "device").rglob("*.py")):
        module = file.relative_to(SRC / "device").with_suffix("")
        own = TESTS / "device" / module.parent / f"test_{module.name}.py"
        if module.name != "__init__" and not own.is_file() and module.as_posix() not in covered:
            wrong.append(module.as_posix())
    assert wrong == [], "each has a test file of its name, or a row in COVERED_BY"


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
