"""``cellfleet lineage``: the chain behind a mask, a table row, a run or a bundle."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellfleet.cli.common import JsonOption, ProjectOption, SetOption, print_json, project_of, say, stop
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.config import Project
from cellfleet.errors import BundleError, LineageError, ReadError
from cellfleet.wire.base import is_key

if TYPE_CHECKING:
    from cellfleet.lineage.chain import Chain, Link
    from cellfleet.runtime.loader import ModelSource
    from cellfleet.runtime.results.provenance import Provenance

_TABLES = (".csv", ".parquet")
_RUN = re.compile(r"^[0-9a-f]{8,64}$")
_FULL_RUN = re.compile(r"^[0-9a-f]{64}$")
_KEY_NUMBERS = ("ap50", "map", "dice", "count_error", "confluence_error")
_NO_KEY = "signed, but no public key is available to verify it; give one with --public-key"


def lineage(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MASK|BUNDLE|ROW|DEVICE/EXPERIMENT/FRAME",
            help="A mask, a bundle, a row such as objects.csv#17 (the first is 1), or a run digest; with --server a frame of an "
            "instrument as DEVICE/EXPERIMENT/FRAME, or a run digest.",
        ),
    ],
    bundle: Annotated[Path | None, typer.Option("--bundle", help="The bundle, if it has moved since the run.")] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option("--public-key", help="Additional trusted key (PEM); repeatable."),
    ] = None,
    server: Annotated[
        str,
        typer.Option(
            "--server", metavar="URL", help="Request the chain from this fleet server (token of `fleet login`)."
        ),
    ] = "",
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the chain from a mask back to data and commit. Exit 0: printed, 1: a link cannot be trusted."""
    from cellfleet.lineage import RecordStore, trace

    default = "" if server else _default_server(what)
    if server or default:
        _print_chain(_request_chain(what, server or default), as_json)
        return
    p = project_of(project, settings)
    store = RecordStore(p.path(p.settings.lineage.records))
    trusted = _trusted(p, public_key or [])
    source, origin = _subject(what, store)
    if origin is not None:
        source = _find_bundle(str(origin.run.get("bundle_sha256", "")), [bundle, origin.model_path], p)
    chain = trace(
        mask=None if origin is None else _mask_facts(origin),
        bundle=None if source is None else _bundle_facts(source),
        bundle_sha256=_digest(source)
        if source is not None
        else str(origin.run.get("bundle_sha256", ""))
        if origin
        else "",
        variant=str(origin.run.get("variant", "")) if origin else "",
        store=store,
        trusted=trusted,
    )
    _print_chain(_with_local_checks(chain, origin, bool(trusted)), as_json)


def _default_server(what: str) -> str:
    """The default fleet server for DEVICE/EXPERIMENT/FRAME if no file has that name; else empty."""
    names = what.split("/")
    if len(names) != 3 or not all(is_key(name) for name in names) or Path(what).exists():
        return ""
    from cellfleet.cli.fleet.client import Credentials

    return os.environ.get("CELLFLEET_SERVER", "") or Credentials.load().default


def _request_chain(what: str, server: str) -> Chain:
    from cellfleet.cli.fleet.client import open_client, part
    from cellfleet.lineage.chain import Chain, Link

    names = what.split("/")
    if len(names) == 1 and _FULL_RUN.match(what):
        names = ["run", what]
    elif len(names) != 3:
        raise LineageError(
            f"{what}: not a frame or a run digest", hint="use DEVICE/EXPERIMENT/FRAME, or a complete run digest"
        )
    found = open_client(server).get(f"/api/v1/lineage/{'/'.join(part(n) for n in names)}")
    return Chain(tuple(Link(x["what"], x["digest"], x["facts"], x["problem"]) for x in found["links"]))


def _print_chain(chain: Chain, as_json: bool) -> None:
    if as_json:
        print_json(chain.as_json())
    else:
        for number, link in enumerate(chain.links):
            _show(link, last=number == len(chain.links) - 1)
    if any(_distrusted(link) for link in chain.links):
        stop(ExitCode.FINDINGS)


def _subject(what: str, store: Any) -> tuple[ModelSource | None, Provenance | None]:
    """Open the subject: a bundle, or the origin of a mask, a row or a run."""
    from cellfleet.bundle import ModelFolder, open_bundle
    from cellfleet.runtime.results.provenance import of_mask, of_row

    table, hash_sign, number = what.rpartition("#")
    if hash_sign and table.lower().endswith(_TABLES) and not Path(what).exists():
        if not number.isdecimal():
            raise ReadError(f"{what}: {number!r} is not the number of a row", hint="for example objects.csv#17")
        return None, of_row(Path(table), int(number))
    path = Path(what)
    if path.is_dir():
        return ModelFolder.load(path), None
    if path.is_file():
        if what.lower().endswith(_TABLES):
            raise ReadError(
                f"{what}: the row is missing", hint=f"for example {what}#17; the first below the header is 1"
            )
        if _is_tiff(path):
            return None, of_mask(path)
        return open_bundle(path), None
    if _RUN.match(what):
        return None, _run(what, store)
    raise ReadError(f"{what}: no such file", hint="give a mask, a bundle, a row as objects.csv#17, or a run digest")


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            return f.read(2) in (b"II", b"MM")
    except OSError as e:
        raise ReadError(f"{path}: {e.strerror or e}", hint="check its permissions") from e


def _run(digest: str, store: Any) -> Provenance:
    from cellfleet.runtime.results.provenance import Provenance, check_run

    found = [record for _, record in store.all("run") if str(record.get("run_digest", "")).startswith(digest)]
    if len({r["run_digest"] for r in found}) != 1:
        raise LineageError(
            f"{'several runs' if found else 'no run'} {digest} in {store.root}",
            hint="give more digits" if found else "give a mask or a row of that run, or its project",
        )
    full = str(found[0]["run_digest"])
    return Provenance({}, full, found[0], None, check_run(found[0], full))


def _mask_facts(origin: Provenance) -> dict[str, Any]:
    run = origin.run
    engine = {"engine": f"{run['engine']} {run['engine_version']}"} if "engine" in run else {}
    settings = {**engine, **dict(run.get("settings") or {})}
    return {**origin.facts, "run_digest": origin.run_digest, "settings": settings}


def _find_bundle(digest: str, named: list[Path | None], p: Project) -> ModelSource | None:
    """Find the bundle with this digest: at the given path, at the path of the run, or among the project's bundles."""
    given, recorded = named
    if given is not None:
        source = _open(given)
        if _digest(source) != digest:
            raise LineageError(f"{given} is not the bundle of this run ({digest[:12]})", hint="give the right bundle")
        return source
    others = sorted(p.path(p.settings.bundle.out).glob("*.bundle.zip"))
    for path in [*([recorded] if recorded is not None else []), *others]:
        try:
            source = _open(path)
        except BundleError:
            continue  # removed or replaced since; the chain reports that it is missing
        if _digest(source) == digest:
            return source
    return None


def _open(path: Path) -> ModelSource:
    from cellfleet.bundle import ModelFolder, open_bundle

    return ModelFolder.load(path) if path.is_dir() else open_bundle(path)


def _digest(source: ModelSource) -> str:
    from cellfleet.runtime.loader import model_digest

    return model_digest(source)


def _bundle_facts(source: ModelSource) -> dict[str, Any]:
    return {
        "file": str(source.path),
        "name": source.spec.name,
        "version": source.spec.version,
        "variants": ", ".join(v.name for v in source.variants),
        "lineage": source.lineage.model_dump(mode="json"),
    }


def _trusted(p: Project, named: list[Path]) -> list[bytes]:
    from cellfleet.lineage.signing import load_public_key, public_path

    own = public_path(p.path(p.settings.lineage.key))
    return [load_public_key(path) for path in [*named, *([own] if own.is_file() else [])]]


def _with_local_checks(chain: Chain, origin: Provenance | None, have_key: bool) -> Chain:
    """Add problems that only this command can detect: a changed mask, a missing key."""
    from cellfleet.lineage.chain import Chain

    links = []
    for link in chain.links:
        if link.what == ("mask" if origin and origin.facts else "run") and origin is not None and origin.problem:
            link = replace(link, problem=origin.problem)
        if link.what == "mask" and not link.facts:
            continue  # the subject is a run digest
        if link.what == "mask" and not link.digest:
            link = replace(link, what="row")
        if link.what == "decision" and link.digest and link.problem and not have_key:
            link = replace(link, problem=_NO_KEY)
        links.append(link)
    return Chain(tuple(links))


def _distrusted(link: Link) -> bool:
    """Whether a link contradicts itself or lacks a trusted signature; a missing record does not count."""
    wrong = bool(link.problem) and link.problem != _NO_KEY and bool(link.digest or link.what == "row")
    return wrong and link.what in ("mask", "row", "run", "decision")


def _show(link: Link, *, last: bool) -> None:
    side = " " if last else "|"
    say(f"* {link.what}{f'  {link.digest}' if link.digest else ''}")
    for name, value in link.facts.items():
        if name == "uncommitted changes" and value == "no git":
            continue  # the line before reports it
        if name == "numbers":
            value = {key: value[key] for key in _KEY_NUMBERS if key in value}
        if value not in (None, "", [], {}):
            say(f"{side}   {name.replace('_', ' ')}: {_text(value)}")
    if link.problem:
        say(f"{side}   ! {link.problem}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list | tuple):
        return "; ".join(_text(v) for v in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
