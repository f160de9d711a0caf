"""``cellfleet fleet audit``: list audit events and verify their chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cellfleet.cli.common import JsonOption, ProjectOption, SetOption, print_json, print_table, project_of, say, stop
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.fleet.client import ServerOption, open_client

LocalOption = Annotated[
    bool, typer.Option("--local", help="Read the project's database instead of requesting it from a server.")
]
audit_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``cellfleet fleet``."""
    app.add_typer(audit_app, name="audit", help="Audit events.")


@audit_app.command("list")
def audit_list(
    limit: Annotated[int, typer.Option("--limit", help="Maximum number of events.", min=1, max=1000)] = 50,
    actor: Annotated[str, typer.Option("--actor", help="Only actors with this prefix, such as person:anna.")] = "",
    action: Annotated[str, typer.Option("--action", help="Only actions with this prefix, such as deployment.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="Only subjects with this prefix, such as device:.")] = "",
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """List events, newest first."""
    query: dict[str, Any] = {"limit": limit, "actor": actor, "action": action, "subject": subject}
    rows = open_client(server).get("/api/v1/audit", **query)["items"]
    if as_json:
        print_json(rows)
    else:
        columns = ("seq", "at", "actor", "action", "subject", "reason")
        print_table("audit events", columns, [tuple(str(r[c]) for c in columns) for r in rows])


@audit_app.command("verify")
def audit_verify(
    head: Annotated[
        str, typer.Option("--head", help="Head printed by an earlier check; it must be in the chain.")
    ] = "",
    local: LocalOption = False,
    server: ServerOption = "",
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify that no audit event was changed, removed or inserted. Exit 0: the chain is valid, 1: it is broken."""
    found = _local(project, settings, head) if local else open_client(server).get("/api/v1/audit/verify", head=head)
    if as_json:
        print_json(found)
    elif found["whole"]:
        say(f"{found['count']} events, the chain is valid; head {found['head']}")
    else:
        say(
            f"the chain is broken at event {found['broken_at']}: {found['why']}; the {found['count']} events before it are valid"
        )
    if not found["whole"]:
        stop(ExitCode.FINDINGS)


def _local(project: Path, settings: list[str] | None, head: str) -> dict[str, Any]:
    from cellfleet.fleet import audit
    from cellfleet.fleet.context import open_context

    context = open_context(project_of(project, settings), upgrade=False)
    try:
        context.database.check_there()
        with context.reading() as db:
            found = audit.verify(db, head)
    finally:
        context.close()
    return {
        "whole": found.broken_at is None,
        "count": found.count,
        "broken_at": found.broken_at,
        "head": found.head,
        "why": found.why,
    }
