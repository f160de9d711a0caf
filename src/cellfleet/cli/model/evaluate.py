"""``cellfleet evaluate``: measure a model on held-out data; report, gate and decision record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from cellfleet.config import Project
from cellfleet.errors import ConfigError

if TYPE_CHECKING:
    from cellfleet.data import DataSetVersion
    from cellfleet.evaluate.write import Written
    from cellfleet.runtime.loader import ModelSource

_SPLITS = ("train", "validation", "test")


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Bundle file or model folder.")],
    data: Annotated[Path | None, typer.Argument(metavar="[DATA]", help="Manifest (default: data.manifest).")] = None,
    split: Annotated[
        str, typer.Option("--split", help="Split of the data set version: test, validation or train.")
    ] = "test",
    variant: Annotated[
        str | None,
        typer.Option("--variant", help="Measure this variant only (default: all; onnxruntime/fp32 for the gate)."),
    ] = None,
    champion: Annotated[
        Path | None,
        typer.Option("--champion", help="Model in production: its bundle, metrics.json or decision.json."),
    ] = None,
    approver: Annotated[str | None, typer.Option("--approver", help="Approver (default: evaluation.approver).")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write (default: below evaluation.out).")] = None,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", metavar="DECISION.json", help="Only verify a decision record of MODEL."),
    ] = None,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model and apply the gate. Exit 0: passed, 1: failed, 3: a refused record."""
    from cellfleet.data import DataSetVersion
    from cellfleet.evaluate.assess import open_model
    from cellfleet.evaluate.champion import open_champion
    from cellfleet.evaluate.write import evaluate_model, folder_name
    from cellfleet.lineage import RecordStore

    if split not in _SPLITS:
        raise ConfigError(f"--split {split}: unknown split", hint=f"choose one of {', '.join(_SPLITS)}")
    p = project_of(project, settings)
    source = open_model(model)
    version = DataSetVersion.load(data or p.path(p.settings.data.manifest))
    if verify is not None:
        _verify(p, source, version, verify, as_json=as_json)
        return
    before = open_champion(champion, _trusted(p), data_set=version.digest, split=split) if champion else None
    folder = out or p.path(p.settings.evaluation.out) / folder_name(source, version, split)
    with progress_bar("evaluating", quiet=as_json) as progress:
        written = evaluate_model(
            source,
            version,
            folder.absolute(),
            policy=p.settings.gate,
            records=RecordStore(p.path(p.settings.lineage.records)),
            key=p.path(p.settings.lineage.key),
            section=p.settings.evaluation,
            settings=p.settings.segment,
            split=split,  # type: ignore[arg-type]  # checked above
            variant=variant,
            champion=before,
            approver=p.settings.evaluation.approver if approver is None else approver,
            progress=progress,
        )
    if as_json:
        print_json(facts(written))
    else:
        show(written)
    if not written.assessment.verdict.passed:
        stop(ExitCode.FINDINGS)


def facts(written: Written) -> dict[str, Any]:
    """Facts for ``--json``: metrics.json without the frames, and the paths."""
    from cellfleet.evaluate.metrics_file import metrics_json
    from cellfleet.evaluate.output import REPORT

    found = metrics_json(written.assessment)
    del found["frames"]
    return {
        **found,
        "folder": str(written.folder),
        "report": str(written.folder / REPORT),
        "decision": written.decision,
    }


def show(written: Written) -> None:
    """Print the tables, each check of the gate, and the paths."""
    from cellfleet.evaluate.output import REPORT

    a = written.assessment
    strata = a.evaluation.summary.strata
    rows = [_row(name, n) for name, n in strata.items()] + [_row("all frames", a.evaluation.summary.overall)]
    columns = ["stratum", "frames", "true", "predicted", "AP@0.5", "mean AP", "Dice", "count error", "confluence error"]
    print_table(f"{a.name} {a.version}, {a.variant}, split {a.evaluation.split}", columns, rows)
    print_table("variants", ["variant", "MB", "ms per frame", "AP@0.5", "mean AP"], [_variant(v) for v in a.variants])
    for v in a.variants:
        if v.evaluation is None:
            say(f"{v.name} was not measured: {v.reason}")
    for check in a.verdict.checks:
        say(f"{'passed' if check.passed else 'FAILED'}: {check.text}")
    if a.used_in_training is None:
        say("note: the model's data set version is not in the records, so held-out frames could not be checked")
    say(f"the gate {a.verdict.code}")
    if written.decision:
        say(f"decision record {written.decision}")
    else:
        say("no decision record: a model folder can still change; build the bundle and evaluate it")
    say(f"report {written.folder / REPORT}")


def _row(name: str, n: Any) -> list[Any]:
    return [
        name,
        n.frames,
        n.true,
        n.predicted,
        round(n.ap50, 3),
        round(n.map, 3),
        round(n.dice, 3),
        round(n.count_error, 3),
        round(n.confluence_error, 2),
    ]


def _variant(v: Any) -> list[Any]:
    size = round(v.bytes / 1e6, 2)
    if v.evaluation is None:
        return [v.name, size, "-", "-", "-"]
    overall = v.evaluation.summary.overall
    return [v.name, size, round(v.evaluation.stages_ms["total"]), round(overall.ap50, 3), round(overall.map, 3)]


def _trusted(p: Project) -> list[bytes]:
    """The project's public key, if it exists."""
    from cellfleet.lineage.signing import load_public_key, public_path

    file = public_path(p.path(p.settings.lineage.key))
    return [load_public_key(file)] if file.exists() else []


def _verify(p: Project, source: ModelSource, version: DataSetVersion, file: Path, *, as_json: bool) -> None:
    from cellfleet.evaluate import policy_digest, verify_decision
    from cellfleet.evaluate.decision import read_json
    from cellfleet.runtime.loader import model_digest

    payload = verify_decision(
        read_json(file),
        _trusted(p),
        bundle=model_digest(source),
        data_set=version.digest,
        policy=policy_digest(p.settings.gate),
    )
    if as_json:
        print_json(payload)
        return
    say("the signature is valid; the record matches this bundle, data set version and policy")
    say(
        f"{payload['model']} {payload['version']}: {payload['verdict']}; approved by {payload['approver'] or 'no approver'}"
    )
    for reason in payload["reasons"]:
        say(f"  {reason}")
