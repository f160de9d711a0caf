"""``cellfleet device provision``: register an instrument with a fleet server, or set it up without a server."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from cellfleet.cli.common import JsonOption, SetOption, print_json, say
from cellfleet.cli.init import INSTRUMENT, project_text
from cellfleet.config import load_project
from cellfleet.device import Home
from cellfleet.errors import ConfigError
from cellfleet.ports import SystemClock


def provision(
    home: Annotated[Path, typer.Argument(metavar="HOME", help="Folder of the instrument; made if missing.")],
    server: Annotated[str, typer.Option("--server", metavar="URL", help="Address of the fleet server.")] = "",
    token: Annotated[
        str, typer.Option("--token", envvar="CELLFLEET_CLAIM_TOKEN", help="Claim token of `cellfleet fleet claim`.")
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Name of the instrument, as on its label.")] = "",
    alone: Annotated[bool, typer.Option("--alone", help="Set up the instrument without a server.")] = False,
    trust_anchors: Annotated[
        Path | None,
        typer.Option("--trust-anchors", metavar="FILE|DIR", help="With --alone: trust anchors of the publisher."),
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the key and the settings of an instrument and register it. Safe to repeat."""
    from cellfleet.device.provisioning import provision as claim_place
    from cellfleet.device.provisioning import provision_alone
    from cellfleet.ports.http import SystemHttp

    _check_options(server, token, name, alone, trust_anchors)
    place, clock = Home.at(home), SystemClock()
    server = server.rstrip("/")
    values = {"device.name": name, "device.server": server or None, **_values(settings or ())}

    had_settings = place.project_file.exists()

    def text() -> str:
        return project_text(values, INSTRUMENT)

    if trust_anchors is not None:
        done = provision_alone(place, clock, trust_anchors=trust_anchors, name=name, settings_text=text)
    else:
        http = SystemHttp(timeout_s=float(values.get("device.network_timeout_s") or 10.0))
        done = claim_place(place, http, clock, server=server, token=token, name=name, settings_text=text)
    if as_json:
        print_json({"home": str(place.root), "device_id": done.device_id, "name": name, "state": done.state})
        return
    say(f"{done.name} ({done.device_id}): {done.state}")
    kept = " (unchanged: --set does not change an existing file; edit it)" if had_settings and settings else ""
    say(f"settings: {place.project_file}{kept}")
    if done.state == "pending":
        say(f"next: an operator runs `cellfleet fleet accept {name}`; then `cellfleet device run {home}`")
    else:
        say(f"next: `cellfleet device run {home}`")


def _check_options(server: str, token: str, name: str, alone: bool, trust_anchors: Path | None) -> None:
    if not name:
        raise ConfigError("an instrument needs a name", hint="set it with --name, as on its label")
    if alone and (server or token):
        raise ConfigError("--alone excludes --server and --token", hint="use --server and --token, or --alone")
    if alone and trust_anchors is None:
        raise ConfigError("--alone needs --trust-anchors", hint="use the folder of `cellfleet trust export`")
    if not alone and trust_anchors is not None:
        raise ConfigError("--trust-anchors needs --alone", hint="with a server, the claim token gives the anchors")
    if not alone and not (server and token):
        raise ConfigError(
            "an instrument needs --server and --token", hint="an operator gets both from `cellfleet fleet claim`"
        )
    if server and urlsplit(server).scheme not in ("http", "https"):
        raise ConfigError(
            f"--server: {server!r} is not an address of a server", hint="for example http://127.0.0.1:8460"
        )


def _values(settings: Sequence[str]) -> dict[str, Any]:
    """Validated settings of the flags by ``section.key``."""
    with tempfile.TemporaryDirectory() as empty:
        checked = load_project(Path(empty), environ={}, overrides=settings).settings
    out = {}
    for text in settings:
        section, _, key = text.partition("=")[0].strip().partition(".")
        if section not in INSTRUMENT:
            raise ConfigError(
                f"--set {text}: an instrument has no section [{section}]", hint=f"it has {', '.join(INSTRUMENT)}"
            )
        out[f"{section}.{key}"] = getattr(getattr(checked, section), key)
    return out
