"""``cellfleet fleet claim | devices | accept | reject | revoke | group | tag``: provisioning over the API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cellfleet.cli.common import JsonOption, print_json, print_table, say
from cellfleet.cli.fleet.client import ServerOption, open_client, part

DevicesArgument = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Ids or names.")]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Id or name.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Reason, written to the audit.")]
GroupOption = Annotated[str, typer.Option("--group", help="Device group.")]
group_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``cellfleet fleet``."""
    for command in (claim, devices, accept, reject, revoke, tag):
        app.command()(command)
    app.add_typer(group_app, name="group", help="Device groups.")


def claim(
    note: Annotated[str, typer.Option("--note", help="Purpose, such as the room.")] = "",
    valid_h: Annotated[float, typer.Option("--valid-h", help="Hours until it expires.")] = 24,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a claim token, which registers one device with the fleet, once."""
    client = open_client(server)
    made = client.post("/api/v1/claims", {"note": note, "valid_h": valid_h})
    if as_json:
        print_json(made)
    else:
        say(str(made["token"]))
        say(f"on the instrument: cellfleet device provision HOME --server {client.base_url} --token ... --name NAME")


def devices(
    device: Annotated[str, typer.Argument(metavar="[DEVICE]", help="Show only this device, with all facts.")] = "",
    state: Annotated[str, typer.Option("--state", help="pending, accepted, rejected or revoked.")] = "",
    group: GroupOption = "",
    tag: Annotated[str, typer.Option("--tag", help="Only devices with this tag.")] = "",
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """List all devices, or show one device."""
    client = open_client(server)
    if device:
        _show(client.get(f"/api/v1/devices/{part(device)}"), as_json)
        return
    rows = list(client.all("/api/v1/devices", state=state, group=group, tag=tag))
    if as_json:
        print_json(rows)
    else:
        columns = ("name", "id", "state", "group", "runs", "agent", "heard", "alarms")
        print_table("devices", columns, [_row(d) for d in rows])


def accept(
    devices: DevicesArgument,
    group: GroupOption = "",
    reason: ReasonOption = "",
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Accept pending devices into the fleet."""
    body = {"group": group or None, "reason": reason}
    _send_each(devices, "POST", "accept", body, server, as_json)


def reject(
    devices: DevicesArgument,
    reason: Annotated[str, typer.Option("--reason", help="Reason, written to the audit.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Reject pending devices."""
    _send_each(devices, "POST", "reject", {"reason": reason}, server, as_json)


def revoke(
    devices: DevicesArgument,
    reason: Annotated[str, typer.Option("--reason", help="Reason, written to the audit.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Remove devices from the fleet; their keys and tokens become invalid at once."""
    _send_each(devices, "POST", "revoke", {"reason": reason}, server, as_json)


def tag(
    device: DeviceArgument,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="[TAG...]", help="All tags of the device; none: remove all.")
    ] = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Set the tags of a device; they replace the previous tags."""
    _send_each([device], "PUT", "tags", {"tags": tags or []}, server, as_json)


@group_app.command("add")
def group_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the group.")],
    description: Annotated[str, typer.Option("--description", help="Description.")] = "",
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a device group."""
    made = open_client(server).post("/api/v1/groups", {"name": name, "description": description})
    print_json(made) if as_json else say(f"group {name} made")


@group_app.command("list")
def group_list(server: ServerOption = "", as_json: JsonOption = False) -> None:
    """List the device groups."""
    rows = list(open_client(server).all("/api/v1/groups"))
    if as_json:
        print_json(rows)
    else:
        print_table("groups", ("name", "devices", "for"), [(g["name"], g["devices"], g["description"]) for g in rows])


@group_app.command("remove")
def group_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the group.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Remove a group that has no devices and no deployments."""
    open_client(server).delete(f"/api/v1/groups/{part(name)}")
    print_json({"removed": name}) if as_json else say(f"group {name} removed")


@group_app.command("put")
def group_put(
    devices: DevicesArgument,
    group: Annotated[str, typer.Option("--group", help="Device group; empty: none.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Move devices into a group; they leave their previous group."""
    _send_each(devices, "PUT", "group", {"group": group or None}, server, as_json)


def _send_each(refs: list[str], method: str, what: str, body: Any, server: str, as_json: bool) -> None:
    client = open_client(server)
    send = client.put if method == "PUT" else client.post
    done = []
    for ref in refs:
        done.append(send(f"/api/v1/devices/{part(ref)}/{what}", body))
        if not as_json:
            d = done[-1]
            words = (
                d["state"],
                f"group {d['group']}" if d["group"] else "",
                f"tags {', '.join(d['tags'])}" if d["tags"] else "",
            )
            say(f"{d['name']} ({d['id']}): {', '.join(w for w in words if w)}")
    if as_json:
        print_json(done)


def _row(d: dict[str, Any]) -> tuple[Any, ...]:
    active = d["active"] or {}
    runs = f"{active['name']} {active['version']}" if active else "-"
    heard = "silent" if d["silent"] else (d["last_seen_at"] or "-")
    return (
        d["name"],
        d["id"],
        d["state"],
        d["group"],
        runs,
        d["reported"].get("state", "-"),
        heard,
        ", ".join(d["alarms"]),
    )


def _show(d: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(d)
        return
    reported, update = d["reported"], d["reported"].get("update") or {}
    rows = [
        ("id", d["id"]),
        ("state", f"{d['state']}, decided by {d['decided_by']}" if d["decided_by"] else d["state"]),
        ("group", d["group"]),
        ("tags", ", ".join(d["tags"])),
        ("runs", _row(d)[4]),
        ("agent", reported.get("state")),
        ("latest update", f"{update['outcome']} {update.get('reason', '')}".strip() if update else None),
        ("problems", "; ".join((reported.get("health") or {}).get("problems", ()))),
        ("heard", d["last_seen_at"]),
        *((f"alarm {code}", text) for code, text in d["alarms"].items()),
    ]
    print_table(d["name"], ("fact", "value"), rows)
