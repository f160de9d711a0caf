"""``cellfleet release publish | list | show | withdraw``."""

from __future__ import annotations

import sys
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
)
from cellfleet.cli.fleet.client import FleetClient, ServerOption, open_client
from cellfleet.errors import ConfigError, FleetError

app = typer.Typer()
ReleaseArgument = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Number of a release, or NAME@VERSION (NAME alone: its newest).")
]
_KEY_NUMBERS = ("ap50", "map", "dice", "count_error", "confluence_error")


@app.command("publish")
def publish(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's file.")],
    decision: Annotated[
        Path | None,
        typer.Option("--decision", help="Decision record (default: the latest record of this bundle in the project)."),
    ] = None,
    override: Annotated[
        str,
        typer.Option(
            "--override", metavar="REASON", help="Reason to release despite a failed or missing gate; approvers only."
        ),
    ] = "",
    notes: Annotated[str, typer.Option("--notes", help="Release notes.")] = "",
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="DIR", help="Trust folder (default: fleet.trust of the project).")
    ] = None,
    server: ServerOption = "",
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle and publish it on the fleet server; the server refuses a bundle without a valid decision record."""
    from cellfleet.bundle import open_bundle
    from cellfleet.cli.fleet.release_publish import Order, evidence_of
    from cellfleet.cli.fleet.release_publish import publish as publish_order
    from cellfleet.evaluate.decision import read_json
    from cellfleet.lineage import RecordStore
    from cellfleet.trust import TrustFolder
    from cellfleet.trust.keys import environment_secrets

    p = project_of(project, settings)
    client = open_client(server)
    opened = open_bundle(bundle)
    store = RecordStore(p.path(p.settings.lineage.records))
    evidence = evidence_of(opened, store, read_json(decision) if decision is not None else None)
    folder = TrustFolder.load(trust or p.path(p.settings.fleet.trust))
    order = Order(opened, folder, environment_secrets(_prompt()), evidence, override, notes)
    with progress_bar("uploading", quiet=as_json) as progress:
        made = publish_order(client, order, progress)
    if as_json:
        print_json(made)
        return
    ref = made["release"]
    say(f"release {ref['release_id']}: {ref['name']} {ref['version']}, counter {ref['counter']}")
    say(f"verdict: {made['verdict'] or 'no decision record'}{f', {_by(made)}' if made['approver'] else ''}")
    if made["override"]:
        say(f"OVERRIDE by {made['override']['by']}: {made['override']['reason']}")
    for what in made["missing"]:
        say(f"not sent: {what}; the lineage shows the gap")


def _by(made: dict[str, Any]) -> str:
    return f"approved by {made['approver']}"


def _prompt() -> Any:
    """A prompt for passphrases; None without a terminal."""
    if not sys.stdin.isatty():
        return None
    return lambda text: typer.prompt(text, hide_input=True, err=True)


@app.command("list")
def list_releases(
    name: Annotated[str, typer.Option("--name", help="Only releases of this model.")] = "",
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the releases, newest first."""
    found = list(open_client(server).all("/api/v1/releases", name=name))
    if as_json:
        print_json(found)
        return
    columns = ("release", "name", "version", "counter", "verdict", "published by", "at", "state")
    print_table("releases", columns, [_row(r) for r in found])


def _row(r: dict[str, Any]) -> tuple[Any, ...]:
    ref = r["release"]
    words = [*(["OVERRIDE"] if r["override"] else []), *(["withdrawn"] if r["withdrawn_at"] else [])]
    return (
        str(ref["release_id"]),
        ref["name"],
        ref["version"],
        ref["counter"],
        r["verdict"] or "none",
        r["published_by"],
        r["published_at"][:16].replace("T", " "),
        ", ".join(words),
    )


@app.command("show")
def show(release: ReleaseArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Show a release: artifact, decision record, approver."""
    client = open_client(server)
    found = client.get(f"/api/v1/releases/{release_number(client, release)}")
    if as_json:
        print_json(found)
        return
    ref, decision = found["release"], found["decision"] or {}
    say(f"release {ref['release_id']}: {ref['name']} {ref['version']}, counter {ref['counter']}")
    say(f"  artifact: {ref['sha256']} ({ref['length'] / 1e6:.1f} MB), {ref['target_path']}")
    say(f"  published: by {found['published_by']}, {found['published_at']}")
    say(f"  verdict: {found['verdict'] or 'none'}{f', {_by(found)}' if found['approver'] else ''}")
    if found["override"]:
        o = found["override"]
        say(f"  OVERRIDE: {o['by']}, {o['at']}: {o['reason']}")
        say(f"    against: {o['against']}")
    if found["decision_problem"]:
        say(f"  ! {found['decision_problem']}")
    numbers = decision.get("numbers") or {}
    if numbers:
        say(
            "  numbers: "
            + ", ".join(f"{k} {numbers[k]:.4g}" for k in _KEY_NUMBERS if isinstance(numbers.get(k), int | float))
        )
    for reason in decision.get("reasons") or ():
        say(f"  reason: {reason}")
    if found["notes"]:
        say(f"  notes: {found['notes']}")
    if found["withdrawn_at"]:
        say(f"  withdrawn: {found['withdrawn_at']}")


@app.command("withdraw")
def withdraw(
    release: ReleaseArgument,
    reason: Annotated[str, typer.Option("--reason", help="Reason, written to the audit.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Withdraw a release: new deployments are refused; running deployments continue (halt them if needed)."""
    client = open_client(server)
    number = release_number(client, release)
    found = client.post(f"/api/v1/releases/{number}/withdraw", {"reason": reason})
    print_json(found) if as_json else say(f"release {number} withdrawn; new deployments of it are refused")


def release_number(client: FleetClient, text: str) -> int:
    """Find the number of a release.

    Args:
        client: the server.
        text: its number, NAME@VERSION, or NAME for the newest.

    Returns:
        The number.

    Raises:
        FleetError: there is no such release.
    """
    if text.isdecimal():
        return int(text)
    name, _, version = text.partition("@")
    if not name:
        raise ConfigError(f"{text!r} is not a release", hint="use a number, or NAME@VERSION")
    for found in client.all("/api/v1/releases", name=name):
        ref = found["release"]
        if not version or ref["version"] == version:
            return int(ref["release_id"])
    raise FleetError(f"there is no release {text}", hint="`cellfleet release list` shows them")
