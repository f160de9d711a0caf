"""``cellfleet fleet``: run the server, sign in, manage users, devices and audit events."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cellfleet.cli.common import JsonOption, ProjectOption, SetOption, err_console, print_json, project_of, say, stop
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.fleet import audit, devices, people

app = typer.Typer(rich_markup_mode=None)
people.register(app)
devices.register(app)
audit.register(app)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on (default: fleet.host).")] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port (default: fleet.port; 0: a free one).", min=0, max=65535)
    ] = None,
    tied: Annotated[bool, typer.Option("--tied", help="Also end when standard input ends.")] = False,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the fleet server (API, pages, rollout) until Ctrl-C. Makes or upgrades the database first."""
    from cellfleet.fleet.context import open_context
    from cellfleet.fleet.serve import serve as run

    p = project_of(project, settings)
    _log_to_stderr()
    context = open_context(p)

    def ready(address: str) -> None:
        if as_json:
            print_json({"address": address, "database": context.database.shown})
        else:
            say(f"fleet server on {address} (database {context.database.shown}); Ctrl-C ends it")
            sys.stdout.flush()
        for line in first_steps(context):
            err_console().print(line, markup=False)

    try:
        by = run(context, host=host, port=port, on_ready=ready, tied=tied)
    finally:
        context.close()
    if by == signal.SIGINT:
        stop(ExitCode.INTERRUPTED)


def first_steps(context: Any) -> list[str]:
    """Setup steps that are still missing."""
    from cellfleet.fleet.people import accounts
    from cellfleet.fleet.refusals import RequestRefused
    from cellfleet.fleet.trust_repository import LoadedKeys

    lines = []
    with context.reading() as db:
        if not accounts.listing(db):
            lines.append("no account yet; run: cellfleet fleet user add NAME --role admin")
    if not (context.path(context.settings.trust) / "keys.json").is_file():
        lines.append("no trust roots yet, so no device can be provisioned; run: cellfleet trust init")
        return lines
    try:
        context.service(LoadedKeys).get()
    except RequestRefused as e:
        lines.append(f"{e.message}; releases and deployments are blocked until this is fixed: {e.hint}")
    return lines


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
