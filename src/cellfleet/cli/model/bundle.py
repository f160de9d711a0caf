"""``cellfleet bundle build | show | verify``."""

from __future__ import annotations

from dataclasses import asdict
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
from cellfleet.cli.model.train import DEFAULT_RUN, RunOption
from cellfleet.errors import BundleError

app = typer.Typer()
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's file.")]


@app.command("build")
def build(
    run: RunOption = DEFAULT_RUN,
    model: Annotated[Path | None, typer.Option("--model", help="Model folder (default: model/ of the run).")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Manifest (default: data.manifest).")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the bundle (default: bundle.out).")] = None,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a bundle from a model folder; equal inputs give equal bytes."""
    from cellfleet.bundle import ModelCard, ModelFolder, build_bundle
    from cellfleet.data import DataSetVersion
    from cellfleet.evaluate.golden import choose_golden, expect

    p = project_of(project, settings)
    s = p.settings
    version = DataSetVersion.load(data or p.path(s.data.manifest))
    folder = ModelFolder.load(model or p.path(s.training.runs) / run / "model")
    golden = choose_golden(version, s.bundle)
    with progress_bar("running golden frames", quiet=as_json) as progress:
        folder, golden = expect(folder, golden, s.bundle, progress)
    card = ModelCard(
        description=s.model.description, license=s.model.license, authors=s.model.authors, data=_data_sentence(version)
    )
    built = build_bundle(folder, golden, card, out or p.path(s.bundle.out), check=_check_card)
    facts = {
        "path": str(built.path),
        "sha256": built.sha256,
        "name": folder.spec.name,
        "version": folder.spec.version,
        "bytes": built.path.stat().st_size,
        "variants": {v.name: v.golden_ap50 for v in folder.variants},
        "golden": [g.name for g in golden],
        "replaced": built.replaced,
    }
    if as_json:
        print_json(facts)
        return
    for v in folder.variants:
        say(
            f"{v.name}: AP@0.5 {v.golden_ap50:.3f} on {len(golden)} golden frames, the limit on a device is "
            f"{v.least_golden_ap50:.3f}"
        )
    if built.replaced:
        say(
            f"replaces {built.replaced}, another bundle with this name and version; increase model.version before a release"
        )
    say(f"bundle {built.sha256}")
    say(f"written to {built.path} ({built.path.stat().st_size / 1e6:.1f} MB)")


@app.command("show")
def show(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Check all files of a bundle and show its description; nothing is run."""
    from cellfleet.bundle import open_bundle
    from cellfleet.bundle.builder import lineage_lines

    opened = open_bundle(bundle)
    m = opened.manifest
    if as_json:
        print_json({"path": str(bundle), "sha256": opened.sha256, **m.as_json()})
        return
    say(f"{m.name} {m.version}: {opened.sha256}")
    say(f"channels {', '.join(m.spec.channels)}; {_grid(m.spec)}")
    objects = m.spec.objects
    say(
        f"objects: foreground from {objects.foreground_threshold:g}, seeds from {objects.seed_threshold:g}, smoothed "
        f"{objects.smooth_passes} times, at least {objects.min_area_px} px"
    )
    rows = [
        [v.name, m.files[v.file].bytes / 1e6, v.golden_ap50, v.least_golden_ap50, v.sha256[:12]] for v in m.variants
    ]
    print_table("variants", ["variant", "MB", "golden AP@0.5", "least", "SHA-256"], rows)
    golden = [[g.name, g.stratum, ", ".join(g.channels), g.pixel_size_um] for g in m.golden]
    print_table("golden frames", ["frame", "stratum", "channels", "um per pixel"], golden)
    for line in lineage_lines(m.lineage):
        say(line)


@app.command("verify")
def verify(
    bundle: BundleArgument,
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads (0: all cores).")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle on this machine: files, description, test tensors, and the golden frames of every variant.

    Exit 1: a variant fails its self-test. Exit 3: the bundle is refused.
    """
    from cellfleet.bundle import open_bundle
    from cellfleet.bundle.validity import check_description, check_test_tensors
    from cellfleet.config.model import SegmentSection
    from cellfleet.runtime.selftest import self_test

    opened = open_bundle(bundle)
    library = check_description(bundle)
    difference = check_test_tensors(opened)
    section = SegmentSection(threads=threads)
    with progress_bar("self-test", quiet=as_json) as progress:
        tests = []
        for done, variant in enumerate(opened.variants, 1):
            tests.append(self_test(opened, variant, section))
            progress(done, len(opened.variants), variant.name)
    passed = all(t.passed for t in tests)
    if as_json:
        print_json(
            {
                "sha256": opened.sha256,
                "files": len(opened.names),
                "bioimageio_spec": library,
                "test_tensor_difference": difference,
                "variants": {t.variant: {**asdict(t), "passed": t.passed} for t in tests},
                "passed": passed,
            }
        )
    else:
        say(f"{opened.manifest.name} {opened.manifest.version}: {opened.sha256}")
        say(f"{len(opened.names)} files have the described size and digest; every network is plain ONNX")
        say(
            f"bioimageio.yaml is valid (bioimageio.spec {library}); portable.onnx reproduces its test tensors to {difference:.1e}"
        )
        rows = [
            [
                t.variant,
                t.ap50,
                t.least_ap50,
                t.agreement,
                t.least_agreement,
                t.milliseconds,
                t.problem or _verdict(t.passed),
            ]
            for t in tests
        ]
        columns = ["variant", "AP@0.5", "least", "agreement", "least", "ms", "self-test"]
        print_table(f"{len(opened.manifest.golden)} golden frames on this machine", columns, rows)
        say("verified" if passed else "NOT verified: a variant fails its self-test on this machine")
    if not passed:
        stop(ExitCode.FINDINGS)


def _check_card(bundle: Path) -> None:
    """Refuse a description that is invalid because of section [model], before the bundle replaces another one."""
    from cellfleet.bundle.refusals import BadDescription
    from cellfleet.bundle.validity import check_description

    try:
        check_description(bundle)
    except BadDescription as e:
        reason = e.message.removeprefix(f"{bundle}: ")
        raise BundleError(reason, hint="check [model]; license must be an SPDX identifier such as CC-BY-4.0") from e


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"


def _grid(spec: Any) -> str:
    if spec.target_pixel_size_um is None:
        return "frames are not resampled"
    unknown = "refused" if spec.demands_pixel_size else f"assumed to be {spec.training_pixel_size_um:g} um"
    return f"frames are resampled to {spec.target_pixel_size_um:g} um per pixel (unknown pixel size: {unknown})"


def _data_sentence(version: Any) -> str:
    train, strata = version.split("train"), sorted({e.stratum for e in version.entries if e.stratum})
    kinds = f" of {', '.join(strata)}" if strata else ""
    return (
        f"{len(train)} images{kinds} with {sum(e.objects for e in train)} annotated cells; "
        f"data set version {version.digest}."
    )
