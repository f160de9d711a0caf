"""Puts small faults into the pure rules, one at a time, and counts how many the tests notice (`make mutants`).

mutmut makes the faults and runs the tests. Three things are changed, because of what this project is:

- Import: an editable install sends every import of `cellfleet` to `src/`, past mutmut's copy. That finder is taken out.
- Faults: those that mypy strict refuses anyway (an argument that is None or gone, a variable that is None) and those of
  message texts are left out. Faults of rules are added: a check that is dropped, an order of comparison that is reversed.
- Tests: only those named in GROUPS run, and of them only the ones that reach the function with the fault.

Not covered by mutmut: decorated functions (properties), constants of modules and fields of classes.

    .venv/bin/python scripts/mutants.py [GROUP ...] [--jobs 2]

Prints the share noticed per group, and each fault that no test noticed; ends with 1 below the least share (95 %).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "mutants"
LEAST = 0.95
UNREACHED, UNSEEN = (5, 33), (0,)
"""Exit codes of a fault's tests, as mutmut gives them; with every other one it was noticed."""


@dataclass(frozen=True)
class Group:
    """Modules (patterns below `src/cellfleet`) and the tests that must notice faults in them (below `tests`, where there)."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "trust": Group(("trust/*.py",), ("trust",)),
    "metrics": Group(("metrics/*.py",), ("metrics",)),
    "evaluate": Group(("evaluate/gate.py",), ("evaluate/test_gate.py",)),
    "update": Group(
        tuple(
            f"device/update/{n}.py"
            for n in ("probation", "selftest", "maintenance_window", "policy", "transitions", "state_machine")
        ),
        tuple(
            f"device/update/test_{n}.py"
            for n in ("probation", "selftest", "maintenance_window", "policy", "transitions", "state_machine", "agent")
        ),
    ),
    "rollout": Group(
        ("fleet/rollout/rules.py",), ("fleet/rollout/test_rules.py", "fleet/rollout/test_rules_boundaries.py")
    ),
}


def main() -> int:
    """Run the groups, each in a process and a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = set(given.groups) - set(GROUPS)
    if unknown:
        parser.error(f"there is no group {sorted(unknown)[0]}")
    if given.inside:
        return _inside(given.jobs)
    good = True
    for name in given.groups or GROUPS:
        _lay(BUILD / name, GROUPS[name])
        argv = [sys.executable, __file__, "--inside", "--jobs", str(given.jobs)]
        log = BUILD / f"{name}.log"
        with log.open("w") as out:
            ended = subprocess.run(argv, cwd=BUILD / name, stdout=out, stderr=subprocess.STDOUT, check=False)
        good = _report(name, log, ended.returncode) and good
    return 0 if good else 1


def _lay(folder: Path, group: Group) -> None:
    """A copy of sources and tests with mutmut's settings."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("src", "tests", "docs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "vendor"))
    kernels = find_spec("cellfleet._kernels")
    if kernels is not None and kernels.origin:
        shutil.copy2(kernels.origin, folder / "src" / "cellfleet")
    settings = {
        "source_paths": ["src"],
        "also_copy": ["docs"],
        "only_mutate": [f"src/cellfleet/{m}" for m in group.modules],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:schemathesis"],
        "pytest_add_cli_args_test_selection": [f"tests/{t}" for t in group.tests if (ROOT / "tests" / t).exists()],
        "track_dependencies": False,
        "use_git_change_detection": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (folder / "pyproject.toml").write_text(text + "\n[tool.mutmut]\n" + "\n".join(lines) + "\n", "utf-8")


def _inside(jobs: int) -> int:
    """In the copy: mutmut with our faults; leaves `unseen.txt` and `counts.json`."""
    sys.meta_path[:] = [f for f in sys.meta_path if "cellfleet" not in getattr(f, "known_source_files", {})]
    sys.path.insert(0, str(Path.cwd() / "src"))
    from mutmut.__main__ import cli
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.mutation.mutators import mutation_operators
    from mutmut.utils.file_utils import walk_mutatable_files

    mutation_operators[:] = _operators(mutation_operators)  # type: ignore[index]
    cli(["run", "--max-children", str(jobs)], standalone_mode=False)
    counts, unseen = {"all": 0, "unseen": 0, "unreached": 0}, []
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            kind = "unreached" if code in UNREACHED else "unseen" if code in UNSEEN else ""
            diff = _changed(get_diff_for_mutant(name, path=path)) if kind else ""
            if kind and _is_fault(diff):
                counts[kind] += 1
                unseen.append(f"{kind}: {path}\n{diff}")
            counts["all"] += not kind or _is_fault(diff)
    Path("counts.json").write_text(json.dumps(counts))
    Path("unseen.txt").write_text("\n".join(unseen))
    return 0


def _changed(diff: str) -> str:
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    at = [i for i, line in enumerate(lines) if line.startswith(("-", "+"))]
    return "\n".join(lines[max(0, at[0] - 1) : at[-1] + 1]) if at else diff


def _is_fault(diff: str) -> bool:
    """Not so: ``zip(..., strict=False)``; ``strict`` asserts what cannot be otherwise."""
    before, after = (
        [s[1:].replace("strict=True", "strict=False") for s in diff.splitlines() if s[0] == c] for c in "-+"
    )
    return before != after


def _report(name: str, log: Path, code: int) -> bool:
    if code:
        sys.stdout.write(log.read_text()[-3000:] + f"\n{name}: mutmut ended with {code}, see {log}\n")
        return False
    counts = json.loads((BUILD / name / "counts.json").read_text())
    missed = counts["unseen"] + counts["unreached"]
    share = 1 - missed / max(1, counts["all"])
    sys.stdout.write((BUILD / name / "unseen.txt").read_text() + "\n")
    sys.stdout.write(f"{name}: {share:.1%} of {counts['all']} faults noticed; {counts['unseen']} not, ")
    sys.stdout.write(f"{counts['unreached']} in code that no test reaches\n")
    sys.stdout.flush()
    return share >= LEAST


def _operators(theirs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """mutmut's own faults without those that say nothing here, and ours."""
    import libcst as cst

    left_out = {"operator_string", "operator_arg_removal", "operator_assignment", "operator_lambda"}
    reversed_order = {cst.LessThan: cst.GreaterThanEqual, cst.LessThanEqual: cst.GreaterThan,
                      cst.GreaterThan: cst.LessThanEqual, cst.GreaterThanEqual: cst.LessThan}  # fmt: skip

    def dropped_check(node: cst.If) -> Iterable[cst.If]:
        """``if ...: raise`` (or return, continue) that never does."""
        last = node.body.body[-1] if isinstance(node.body, cst.IndentedBlock) else None
        small = last.body[-1] if isinstance(last, cst.SimpleStatementLine) else None
        if isinstance(small, cst.Raise | cst.Return | cst.Continue):
            yield node.with_changes(test=cst.Name("False"))

    def dropped_call(node: cst.Expr) -> Iterable[cst.Expr]:
        """``check_this(...)`` that is not called."""
        if isinstance(node.value, cst.Call) and not _is_log(node.value):
            yield node.with_changes(value=cst.Ellipsis())

    def _is_log(call: cst.Call) -> bool:
        owner = call.func.value if isinstance(call.func, cst.Attribute) else None
        return isinstance(owner, cst.Name) and owner.value == "_log"

    def dropped_keyword(node: cst.Call) -> Iterable[cst.Call]:
        """An argument that has a name, mostly one with a default; hints are text, ``strict`` of ``zip`` asserts."""
        for i, arg in enumerate(node.args):
            if arg.keyword is not None and arg.keyword.value not in ("hint", "strict"):
                yield node.with_changes(args=[*node.args[:i], *node.args[i + 1 :]])

    def other_side(node: cst.ComparisonTarget) -> Iterable[cst.ComparisonTarget]:
        for before, after in reversed_order.items():
            if isinstance(node.operator, before):
                yield node.with_changes(operator=after())

    kept = [(kind, operator) for kind, operator in theirs if operator.__name__ not in left_out]
    ours = [(cst.If, dropped_check), (cst.Expr, dropped_call), (cst.Call, dropped_keyword),
            (cst.ComparisonTarget, other_side)]  # fmt: skip
    return [*kept, *ours]


if __name__ == "__main__":
    sys.exit(main())
