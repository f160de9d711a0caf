"""``cellfleet deploy start | list | show | approve | halt | resume | cancel``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from cellfleet.cli.common import JsonOption, err_console, print_json, print_table, say, stop
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.fleet.client import FleetClient, ServerOption, open_client
from cellfleet.cli.fleet.deploy_phases import agent_of, phases_of, window_of
from cellfleet.cli.fleet.release import ReleaseArgument, release_number
from cellfleet.errors import NetworkError
from cellfleet.wire.rollout import FAILURES

app = typer.Typer()
DeploymentArgument = Annotated[int, typer.Argument(metavar="DEPLOYMENT", min=1, help="Number of a deployment.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Reason, written to the audit.")]
RequiredReason = Annotated[
    str, typer.Option("--reason", help="Reason, written to the audit and shown with the deployment.")
]
WatchOption = Annotated[bool, typer.Option("--watch", help="Print changes until the deployment ends or halts.")]
EVERY_S = 1.0
_ENDS = ("succeeded", "cancelled", "halted")
_ORDER = ("succeeded", "updating", "deferred", "offered", "waiting", *FAILURES)


@app.command("start")
def start(
    release: ReleaseArgument,
    group: Annotated[str, typer.Option("--group", help="Device group.")],
    phase: Annotated[
        list[str] | None,
        typer.Option(
            "--phase",
            metavar="SIZE[,OPTION=VALUE...]",
            help="Count or percentage of all instruments, with options of this phase (soak-s, max-failures, "
            "max-failure-percent, min-ended, min-success-percent, silent-after-s, approval); repeatable.",
        ),
    ] = None,
    soak_s: Annotated[
        float | None, typer.Option("--soak-s", help="Observe a phase for this time before the next one.")
    ] = None,
    max_failures: Annotated[int | None, typer.Option("--max-failures", help="Limit of failures in a phase.")] = None,
    max_failure_percent: Annotated[
        float | None,
        typer.Option("--max-failure-percent", help="Limit of the failure percentage beyond --max-failures."),
    ] = None,
    min_ended: Annotated[
        int | None,
        typer.Option("--min-ended", help="Minimum number of ended instruments before the percentage applies."),
    ] = None,
    min_success_percent: Annotated[
        float | None, typer.Option("--min-success-percent", help="Percentage that must succeed before the next phase.")
    ] = None,
    silent_after_s: Annotated[
        float | None, typer.Option("--silent-after-s", help="An instrument without a report for this time has failed.")
    ] = None,
    needs_approval: Annotated[
        bool, typer.Option("--needs-approval", help="An approver must approve the deployment before it starts.")
    ] = False,
    window: Annotated[
        str, typer.Option("--window", metavar="HH:MM-HH:MM", help="Maintenance window for the activation.")
    ] = "",
    window_offset_min: Annotated[
        int, typer.Option("--window-offset-min", help="Offset of the window from UTC, minutes.")
    ] = 0,
    window_days: Annotated[
        str, typer.Option("--window-days", metavar="mon,tue,...", help="Days on which the window starts.")
    ] = "",
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", metavar="KEY=VALUE", help="Override a setting of section [agent]; repeatable."),
    ] = None,
    allow_downgrade: Annotated[
        bool,
        typer.Option(
            "--allow-downgrade", help="Allow a lower release counter; instruments require a signed allowance."
        ),
    ] = False,
    reason: ReasonOption = "",
    watch: WatchOption = False,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Deploy a release to a device group in phases."""
    defaults = {
        "soak_s": soak_s,
        "max_failures": max_failures,
        "max_failure_percent": max_failure_percent,
        "min_ended": min_ended,
        "min_success_percent": min_success_percent,
        "silent_after_s": silent_after_s,
    }
    body: dict[str, Any] = {
        "group": group,
        "phases": phases_of(phase or [], defaults),
        "window": window_of(window, window_offset_min, window_days),
        "needs_approval": needs_approval,
        "agent": agent_of(agent or []),
        "allow_downgrade": allow_downgrade,
        "reason": reason,
    }
    client = open_client(server)
    body["release_id"] = release_number(client, release)
    made = client.post("/api/v1/deployments", body)
    if watch:
        _watch(client, made["id"], as_json)
    elif as_json:
        print_json(made)
    else:
        say(line(made))


@app.command("list")
def list_deployments(
    group: Annotated[str, typer.Option("--group", help="Only deployments of this group.")] = "",
    state: Annotated[str, typer.Option("--state", help="Only deployments in this state.")] = "",
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the deployments, newest first."""
    found = list(open_client(server).all("/api/v1/deployments", group=group, state=state))
    if as_json:
        print_json(found)
        return
    columns = ("deployment", "release", "group", "state", "phase", "succeeded", "failed", "all", "by", "at")
    print_table("deployments", columns, [_row(d) for d in found])


def _row(d: Mapping[str, Any]) -> tuple[Any, ...]:
    counts = d["counts"]
    failed = sum(counts.get(s, 0) for s in FAILURES)
    return (
        str(d["id"]),
        f"{d['release']['name']} {d['release']['version']}",
        d["group"],
        d["state"],
        f"{d['phase']}/{d['phases']}",
        counts.get("succeeded", 0),
        failed,
        sum(counts.values()),
        d["created_by"],
        d["created_at"][:16].replace("T", " "),
    )


@app.command("show")
def show(
    deployment: DeploymentArgument, watch: WatchOption = False, server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """Show a deployment and its instruments. With --watch exit 0: succeeded or cancelled, 1: halted."""
    client = open_client(server)
    if watch:
        _watch(client, deployment, as_json)
        return
    found, members = _fetch(client, deployment)
    if as_json:
        print_json({**found, "members": members})
        return
    say(line(found))
    if found["request"]["reason"]:
        say(f"  reason: {found['request']['reason']}")
    _print_members(members)


def _fetch(client: FleetClient, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return client.get(f"/api/v1/deployments/{number}"), list(client.all(f"/api/v1/deployments/{number}/members"))


def line(d: Mapping[str, Any]) -> str:
    """Describe the state of a deployment in one line."""
    words = ", ".join(f"{d['counts'][s]} {s}" for s in _ORDER if d["counts"].get(s))
    text = f"deployment {d['id']}: {d['release']['name']} {d['release']['version']} to {d['group']}: {d['state']}"
    text += f", phase {d['phase']} of {d['phases']}: {words or 'no instruments'}"
    if d["state"] == "halted" and d["halted_reason"]:
        return f"{text}\n  halted: {d['halted_reason']}"
    return f"{text}\n  waits for: {d['waits_for']}" if d["waits_for"] else text


def _print_members(members: list[dict[str, Any]]) -> None:
    rows = [
        (m["name"], m["state"], m["phase"] or "-", (m["update"] or {}).get("state", ""), m["reason"]) for m in members
    ]
    print_table("instruments", ("name", "state", "phase", "agent", "reason"), rows)


def _watch(client: FleetClient, number: int, as_json: bool, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print changes until the deployment ends or halts; retry while the server cannot be reached."""
    printed: dict[str, str] = {}
    unreachable = False
    while True:
        try:
            found, members = _fetch(client, number)
        except NetworkError as e:
            if not unreachable:
                err_console().print(f"the server cannot be reached: {e.message}; retrying", markup=False)
            unreachable = True
            sleep(EVERY_S)
            continue
        unreachable = False
        if not as_json:
            _print_changes(found, members, printed)
        if found["state"] in _ENDS:
            break
        sleep(EVERY_S)
    if as_json:
        print_json({**found, "members": members})
    if found["state"] == "halted":
        stop(ExitCode.FINDINGS)


def _print_changes(found: Mapping[str, Any], members: list[dict[str, Any]], printed: dict[str, str]) -> None:
    for m in members:
        agent = (m["update"] or {}).get("state", "")
        text = f"  {m['name']}: {m['state']}{f' ({agent})' if agent and agent != 'idle' else ''}"
        text += f": {m['reason']}" if m["reason"] else ""
        if m["state"] != "waiting" and printed.get(m["name"]) != text:
            printed[m["name"]] = text
            say(text)
    if printed.get("") != (text := line(found)):
        printed[""] = text
        say(text)


@app.command("approve")
def approve(
    deployment: DeploymentArgument, reason: ReasonOption = "", server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """Approve the waiting phase; approvers only."""
    _send_action(deployment, "approve", reason, server, as_json)


@app.command("halt")
def halt(
    deployment: DeploymentArgument, reason: RequiredReason, server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """Halt a deployment: no further instrument is offered the release; instruments that have not activated it keep their slot."""
    _send_action(deployment, "halt", reason, server, as_json)


@app.command("resume")
def resume(
    deployment: DeploymentArgument, reason: ReasonOption = "", server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """Resume a halted deployment; earlier failures no longer count."""
    _send_action(deployment, "resume", reason, server, as_json)


@app.command("cancel")
def cancel(
    deployment: DeploymentArgument, reason: RequiredReason, server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """End a deployment in its current state; its group can get another one."""
    _send_action(deployment, "cancel", reason, server, as_json)


def _send_action(deployment: int, what: str, reason: str, server: str, as_json: bool) -> None:
    found = open_client(server).post(f"/api/v1/deployments/{deployment}/{what}", {"reason": reason})
    print_json(found) if as_json else say(line(found))
