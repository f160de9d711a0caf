"""``cellfleet data``: validate, freeze, show, compare and synthesise data sets."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from cellfleet.cli.common import (
    JsonOption,
    ProjectOption,
    SetOption,
    print_json,
    print_table,
    progress_bar,
    project_of,
    say,
    stop,
)
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.model.synth import synth
from cellfleet.config import Project

app = typer.Typer(add_completion=False)
app.command("synth", help="Make a data set of synthetic phase-contrast time-lapses with exact ground truth.")(synth)

SourceArgument = Annotated[
    Path | None, typer.Argument(metavar="[SOURCE]", help="Folder or COCO file (default: data.source of the project).")
]


def _project(project: Path, source: Path | None, settings: list[str] | None) -> Project:
    extra = [] if source is None else [f"data.source={json.dumps(str(source.absolute()), ensure_ascii=False)}"]
    return project_of(project, [*(settings or []), *extra])


@app.command("validate")
def validate(
    source: SourceArgument = None,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Also exit with 1 for warnings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every image and mask; print one line per finding. Exit 0: no errors, 1: errors."""
    from cellfleet.data import validate as run_validation
    from cellfleet.data.findings import errors

    p = _project(project, source, settings)
    with progress_bar("validating", quiet=as_json) as progress:
        findings = run_validation(p.settings.data, p.root, progress)
    wrong = len(errors(findings))
    if as_json:
        print_json({"errors": wrong, "warnings": len(findings) - wrong, "findings": [f.to_dict() for f in findings]})
    else:
        for finding in findings:
            say(str(finding))
        say(f"{wrong} error(s), {len(findings) - wrong} warning(s)")
    if wrong or (strict and findings):
        stop(ExitCode.FINDINGS)


@app.command("freeze")
def freeze(
    source: SourceArgument = None,
    out: Annotated[Path | None, typer.Option("--out", help="Manifest to write (default: data.manifest).")] = None,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the manifest of a data set version and print its digest; no files are copied."""
    from cellfleet.data import freeze as run_freeze
    from cellfleet.data.findings import Finding
    from cellfleet.lineage import RecordStore

    p = _project(project, source, settings)
    warnings: list[Finding] = []
    with progress_bar("freezing", quiet=as_json) as progress:
        version = run_freeze(p.settings.data, p.root, progress, on_warning=warnings.append)
    file = (out or p.path(p.settings.data.manifest)).absolute()
    version.save(file)
    RecordStore(p.path(p.settings.lineage.records)).put("data-set", version.manifest_dict())
    if as_json:
        print_json({"digest": version.digest, "file": str(file), **_facts(version)})
        return
    for finding in warnings:
        say(str(finding))
    _print_facts(version)
    say(f"data set version {version.digest}")
    say(f"written to {file}")


@app.command("show")
def show(
    manifest: Annotated[Path | None, typer.Argument(help="Manifest (default: data.manifest of the project).")] = None,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the content of a data set version."""
    from cellfleet.data import DataSetVersion

    p = project_of(project, settings)
    version = DataSetVersion.load(manifest or p.path(p.settings.data.manifest))
    if as_json:
        print_json({"digest": version.digest, **_facts(version)})
        return
    _print_facts(version)
    say(f"data set version {version.digest}")


@app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="Manifest of the old version.")],
    new: Annotated[Path, typer.Argument(help="Manifest of the new version.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two data set versions. Exit 0: equal, 1: different."""
    from cellfleet.data import DataSetVersion
    from cellfleet.data.freeze import diff as compare

    a, b = DataSetVersion.load(old), DataSetVersion.load(new)
    found = compare(a, b)
    if as_json:
        print_json({"old": a.digest, "new": b.digest, "same": found.same, **vars(found)})
    else:
        for what in ("added", "removed", "changed_image", "changed_mask", "changed_files", "changed_metadata"):
            for i in getattr(found, what):
                say(f"{what.replace('_', ' ')}: {i}")
        for i, (was, now) in found.moved.items():
            say(f"moved: {i}: {was} -> {now}")
        say("the versions are the same" if found.same else "the versions differ")
    if not found.same:
        stop(ExitCode.FINDINGS)


def _facts(version: Any) -> dict[str, Any]:
    entries = version.entries
    table: dict[str, dict[str, int]] = {}
    for split in ("train", "validation", "test"):
        table[split] = dict(sorted(Counter(e.stratum for e in entries if e.split == split).items()))
    sizes = Counter(f"{e.height} x {e.width}" for e in entries)
    return {
        "images": len(entries),
        "objects": sum(e.objects for e in entries),
        "groups": len({e.group for e in entries}),
        "channels": sorted({c for e in entries for c in e.channels}),
        "dtypes": sorted({e.dtype for e in entries}),
        "sizes_px": dict(sizes.most_common(5)),
        "pixel_sizes_um": sorted({e.pixel_size_um for e in entries if e.pixel_size_um is not None}),
        "splits": table,
    }


def _print_facts(version: Any) -> None:
    facts = _facts(version)
    strata = sorted({s for row in facts["splits"].values() for s in row})
    rows = [[split, *(row.get(s, 0) for s in strata), sum(row.values())] for split, row in facts["splits"].items()]
    print_table("images by split and stratum", ["split", *strata, "all"], rows)
    sizes = ", ".join(f"{size} ({n})" for size, n in facts["sizes_px"].items())
    um = ", ".join(f"{x:g} um" for x in facts["pixel_sizes_um"]) or "unknown"
    say(f"{facts['images']} images, {facts['objects']} objects, {facts['groups']} groups; {', '.join(facts['dtypes'])}")
    say(f"sizes {sizes}; pixel size {um}; channels {', '.join(facts['channels'])}")
