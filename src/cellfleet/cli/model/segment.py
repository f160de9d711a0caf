"""``cellfleet segment``: images and videos to masks, outlines, overlays and tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellfleet.cli.common import (
    JsonOption,
    ProjectOption,
    SetOption,
    err_console,
    print_json,
    progress_bar,
    project_of,
    say,
    stop,
)
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.config import Project
from cellfleet.errors import ConfigError

if TYPE_CHECKING:
    from cellfleet.runtime.results.outputs import Failure, Report
    from cellfleet.runtime.segmenter import Origin


def segment(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, or a model folder.")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Images, videos, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")],
    variant: Annotated[
        str, typer.Option("--variant", help="engine/precision (default: the fastest on this machine).")
    ] = "",
    pixel_size_um: Annotated[
        float | None, typer.Option("--pixel-size-um", help="Pixel size of the inputs; overrides their metadata.")
    ] = None,
    channels: Annotated[
        str, typer.Option("--channels", help="Channel names of the inputs, in order, separated by commas.")
    ] = "",
    tile_px: Annotated[
        int | None, typer.Option("--tile-px", help="Frames with a longer side are tiled (default: segment.tile_px).")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads (default: segment.threads).")] = None,
    overlays: Annotated[bool, typer.Option("--overlays/--no-overlays", help="Write overlay pictures.")] = True,
    contours: Annotated[bool, typer.Option("--contours/--no-contours", help="Write outlines as GeoJSON.")] = True,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment images and videos. Exit 0: all segmented, 1: some failed, 3: all failed."""
    from cellfleet.runtime import OutputOptions, load_segmenter, segment_files

    p = _project(project, settings, tile_px, threads)
    options = OutputOptions(contours, overlays, _names(channels), _positive(pixel_size_um))
    segmenter = load_segmenter(_open(bundle), variant or None, p.settings.segment, decisive=options.decisive)
    assert segmenter.origin is not None
    if not as_json:
        say(_title(segmenter.origin))
    with progress_bar("segmenting", quiet=as_json) as progress:
        report = segment_files(
            segmenter,
            inputs,
            out,
            options,
            model_path=bundle,
            progress=progress,
            on_failure=lambda failure: _print_failure(failure, as_json),
        )
    _record(p, segmenter.origin)
    if as_json:
        print_json(_facts(report, segmenter.origin))
    else:
        _summary(report)
    if report.failed:
        stop(ExitCode.FINDINGS if report.frames else ExitCode.REFUSED)


def _project(project: Path, settings: list[str] | None, tile_px: int | None, threads: int | None) -> Project:
    flags = {"tile_px": tile_px, "threads": threads}
    extra = [f"segment.{name}={value}" for name, value in flags.items() if value is not None]
    return project_of(project, [*(settings or []), *extra])


def _names(channels: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in channels.split(",") if name.strip())
    if len(set(names)) != len(names):
        raise ConfigError(f"--channels {channels}: duplicate name", hint="give each channel a different name")
    return names


def _positive(pixel_size_um: float | None) -> float | None:
    if pixel_size_um is not None and not 0 < pixel_size_um < 1e6:
        raise ConfigError(f"--pixel-size-um {pixel_size_um:g}: not a size", hint="for example --pixel-size-um 0.65")
    return pixel_size_um


def _open(bundle: Path) -> Any:
    from cellfleet.bundle import ModelFolder, open_bundle

    return ModelFolder.load(bundle) if bundle.is_dir() else open_bundle(bundle)


def _title(origin: Origin) -> str:
    return f"{origin.model} {origin.model_version} with {origin.engine} {origin.engine_version} ({origin.reason})"


def _print_failure(failure: Failure, quiet: bool) -> None:
    if quiet:
        return
    console = err_console()
    console.print(f"not segmented: {failure.message}", markup=False)
    if failure.hint:
        console.print(f"  hint: {failure.hint}", markup=False)


def _record(p: Project, origin: Origin) -> None:
    """Keep the run in the records of the project, so that its bundle is found by the run digest."""
    from cellfleet.lineage import RecordStore

    if not p.found:
        return
    record = {
        "run_digest": origin.run_digest,
        "bundle_sha256": origin.model_sha256,
        "model": origin.model,
        "model_version": origin.model_version,
        "variant": origin.variant,
        "engine": origin.engine,
        "engine_version": origin.engine_version,
        "settings": origin.settings,
    }
    RecordStore(p.path(p.settings.lineage.records)).put("run", record)


def _facts(report: Report, origin: Origin) -> dict[str, Any]:
    return {
        "run_digest": report.run_digest,
        "folder": str(report.folder.absolute()),
        "model": origin.model,
        "version": origin.model_version,
        "bundle_sha256": origin.model_sha256,
        "variant": origin.variant,
        "engine": origin.engine,
        "engine_version": origin.engine_version,
        "reason": origin.reason,
        "segmented": report.segmented,
        "skipped": report.skipped,
        "frames": report.frames,
        "objects": report.objects,
        "ms_per_frame": report.ms_per_frame,
        "supersedes": report.supersedes,
        "failed": [vars(failure) for failure in report.failed],
        "parquet": report.parquet,
    }


def _summary(report: Report) -> None:
    speed = f", {report.ms_per_frame:.0f} ms per frame" if report.ms_per_frame is not None else ""
    before = f"; {report.skipped} were already segmented" if report.skipped else ""
    say(f"{_counted(report.segmented, 'frame')} segmented{speed}{before}")
    say(f"{_counted(report.objects, 'object')} in {_counted(report.frames, 'frame')}")
    if report.failed:
        say(f"{len(report.failed)} could not be segmented; they are listed in run.json")
    if report.supersedes:
        say(f"supersedes run {report.supersedes[:12]}, whose results are kept")
    if not report.parquet:
        say("no Parquet tables: pyarrow is not installed (pip install 'cellfleet[tables]')")
    say(f"run {report.run_digest}")
    say(f"written to {report.folder}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
