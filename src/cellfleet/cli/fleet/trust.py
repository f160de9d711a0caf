"""``cellfleet trust``: keys and update repositories. Signing is separate from serving."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellfleet.cli.common import JsonOption, ProjectOption, print_json, print_table, project_of, say, stop
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.errors import ConfigError

if TYPE_CHECKING:
    from cellfleet.trust.folder import TrustFolder
    from cellfleet.trust.keys import ExternalKey, Secrets
    from cellfleet.trust.rotation import RoleStatus

app = typer.Typer(add_completion=False)

TrustOption = Annotated[
    Path | None, typer.Option("--trust", metavar="DIR", help="Trust folder (default: fleet.trust of the project).")
]
_STATES = {"ok": "good", "soon": "renew it soon", "expired": "EXPIRED", "server": "the server renews it"}
_DAY_S = 86400.0


@app.command("init")
def init(
    trust: TrustOption = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="NAME=URI", help="A key in a KMS or an HSM; repeatable."),
    ] = None,
    publics: Annotated[
        list[str] | None,
        typer.Option("--public", metavar="NAME=FILE", help="PEM file of its public key; repeatable."),
    ] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make keys and both update repositories in a new folder. Passphrases are read from the environment or a prompt."""
    from cellfleet.trust import TrustFolder

    folder = TrustFolder.init(_path(trust, project), _secrets(confirm=True), _now(), _external(keys, publics))
    if as_json:
        print_json(_facts(folder))
        return
    say(f"{folder.path} made: {len(folder.book.keys)} keys, image repository and director; 2 of 3 root keys must sign")
    say(f"anchors: {_anchors_digest(folder)}")
    say("keep keys/ offline and the root keys in three places; copy the folder without keys/ to the server")


@app.command("status")
def status(trust: TrustOption = None, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Show roles, keys, versions and expiry. Exit 0: all valid, 1: a role has expired or expires soon."""
    from cellfleet.trust import TrustFolder
    from cellfleet.trust.rotation import status as status_of

    folder = TrustFolder.load(_path(trust, project))
    rows = status_of(folder, _now())
    if as_json:
        print_json({**_facts(folder), "roles": [_row_facts(r) for r in rows]})
    else:
        columns = ("role", "repository", "keys", "must sign", "version", "expires", "state")
        print_table(str(folder.path), columns, [_row_cells(r) for r in rows])
        say(f"anchors: {_anchors_digest(folder)}")
    bad = [r for r in rows if r.state in ("soon", "expired")]
    if bad and not as_json:
        roles = sorted({r.role for r in bad})
        say(f"to renew: {', '.join(roles)}: cellfleet trust rotate {roles[0]} --renew")
    if bad:
        stop(ExitCode.FINDINGS)


@app.command("rotate")
def rotate(
    key: Annotated[str, typer.Argument(help="Key to replace (root-1, models, ...), or with --renew the role.")],
    trust: TrustOption = None,
    renew: Annotated[bool, typer.Option("--renew", help="Keep the key; sign again with a new expiry.")] = False,
    uri: Annotated[str, typer.Option("--uri", help="URI of the new key in a KMS or an HSM.")] = "",
    public: Annotated[Path | None, typer.Option("--public", help="PEM file of its public key.")] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Replace a key, or renew the metadata that it signed. The two other root keys can replace a lost root key."""
    from cellfleet.trust import TrustFolder
    from cellfleet.trust.keys import ExternalKey
    from cellfleet.trust.rotation import renew as renew_role
    from cellfleet.trust.rotation import rotate as rotate_key

    if bool(uri) != (public is not None):
        raise ConfigError("--uri and --public belong together", hint="use both, or neither to make a key file")
    if renew and uri:
        raise ConfigError("--renew keeps the key", hint="remove --uri and --public")
    folder = TrustFolder.load(_path(trust, project))
    external = ExternalKey.read(uri, public) if public is not None else None
    if renew:
        files = renew_role(folder, key, _secrets(), _now())
    else:
        files = rotate_key(folder, key, _secrets(confirm=True), _now(), external)
    if as_json:
        print_json({**_facts(folder), "files": files})
        return
    say(f"{key}: {'signed again' if renew else 'a new key signs'}; new in {folder.path}: {', '.join(files)}")
    say("copy the folder without keys/ to the server; it loads new files at its start and while it runs")


@app.command("allow")
def allow(
    name: Annotated[str, typer.Argument(help="Name of the model or software.")],
    from_counter: Annotated[int, typer.Option("--from", min=1, help="Release counter of the installed version.")],
    to_counter: Annotated[int, typer.Option("--to", min=1, help="Lower release counter to allow.")],
    reason: Annotated[str, typer.Option("--reason", help="Reason, shown on the instrument and in its reports.")],
    device: Annotated[str, typer.Option("--device", help="Id of the only allowed instrument (default: all).")] = "",
    days: Annotated[float, typer.Option("--days", min=0.01, max=365, help="Validity of the allowance, days.")] = 7,
    software: Annotated[bool, typer.Option("--software", help="NAME is software, not a model.")] = False,
    trust: TrustOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Allow instruments to install a lower release counter, for a reason and a limited time."""
    from cellfleet.trust import TrustFolder

    folder = TrustFolder.load(_path(trust, project))
    expires = _now() + timedelta(days=days)
    made = folder.allow(
        kind="software" if software else "model",
        name=name,
        from_counter=from_counter,
        to_counter=to_counter,
        device_id=device or None,
        expires=expires,
        reason=reason,
        secrets=_secrets(),
        now=_now(),
    )
    if as_json:
        print_json({"allowance": made.target_path, "expires": expires.isoformat(), "files": sorted(made.files)})
        return
    say(f"{made.target_path}: valid until {expires:%Y-%m-%d %H:%M} UTC")
    say(f"new in {folder.path / 'image'}: {', '.join(sorted(made.files))}")


@app.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="Folder to write; an existing export is renewed.")],
    devices: Annotated[list[str], typer.Option("--device", help="Id of an instrument; repeatable.")],
    artifacts: Annotated[list[Path], typer.Option("--artifact", help="Published bundle to install; repeatable.")],
    days: Annotated[float, typer.Option("--days", min=0.01, max=365, help="Validity of the folder, days.")] = 90,
    publish: Annotated[
        bool, typer.Option("--publish", help="Sign unpublished bundles; for a fleet without a server.")
    ] = False,
    decision: Annotated[
        Path | None,
        typer.Option("--decision", help="With --publish: decision record (default: the latest record in the project)."),
    ] = None,
    trust: TrustOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a folder for instruments without a network: artifacts, and metadata for them that the offline role signs."""
    from cellfleet.trust import TrustFolder
    from cellfleet.trust.offline_folder import export as export_folder

    folder = TrustFolder.load(_path(trust, project))
    secrets = _secrets()
    if decision is not None and not publish:
        raise ConfigError("--decision needs --publish", hint="add --publish, or remove --decision")
    if publish:
        from cellfleet.cli.fleet.trust_publish import publish_here

        for path in artifacts:
            publish_here(folder, path, project_of(project, None), secrets, _now(), decision)
    done = export_folder(
        folder,
        out,
        devices=devices,
        artifacts=artifacts,
        life=timedelta(days=days),
        secrets=secrets,
        now=_now(),
    )
    if as_json:
        releases = [{"name": r.name, "version": r.version, "counter": r.counter} for r in done.releases]
        facts = {"folder": str(out), "devices": list(done.devices), "releases": releases}
        print_json({**facts, "expires": done.expires.isoformat()})
        return
    names = ", ".join(f"{r.name} {r.version}" for r in done.releases)
    say(f"{out}: {names} for {', '.join(done.devices)}, valid until {done.expires:%Y-%m-%d}")


def _path(trust: Path | None, project: Path) -> Path:
    if trust is not None:
        return trust
    found = project_of(project, None)
    return found.root / found.settings.fleet.trust


def _secrets(*, confirm: bool = False) -> Secrets:
    """Passphrases from the environment, or from a prompt on a terminal."""
    from cellfleet.trust.keys import environment_secrets

    def prompt(text: str) -> str:
        return str(typer.prompt(text, hide_input=True, confirmation_prompt=confirm, err=True))

    return environment_secrets(prompt if sys.stdin.isatty() else None)


def _external(keys: list[str] | None, publics: list[str] | None) -> dict[str, ExternalKey]:
    from cellfleet.trust.keys import ExternalKey

    uris, files = _pairs("--key", keys), _pairs("--public", publics)
    if set(uris) != set(files):
        unpaired = sorted(set(uris) ^ set(files))[0]
        raise ConfigError(f"{unpaired}: --key and --public belong together", hint="use both for each key")
    return {name: ExternalKey.read(uri, Path(files[name])) for name, uri in uris.items()}


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    out: dict[str, str] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} {text}: not NAME=VALUE", hint="for example root-1=awskms:alias/r1")
        out[name] = value
    return out


def _now() -> datetime:
    return datetime.now(UTC)


def _facts(folder: TrustFolder) -> dict[str, Any]:
    from cellfleet.trust.publish import named

    keys = {n: {"keyid": e.keyid, "held_by": e.held} for n, e in folder.book.keys.items()}
    releases = [
        {"kind": r.kind, "name": r.name, "version": r.version, "counter": r.counter, "sha256": r.sha256}
        for r in sorted(named(folder.image_files()).values(), key=lambda r: (r.kind, r.name, r.counter))
    ]
    anchors = {**folder.anchors().model_dump(), "short": _anchors_digest(folder)}
    return {"folder": str(folder.path), "anchors": anchors, "keys": keys, "releases": releases}


def _anchors_digest(folder: TrustFolder) -> str:
    from cellfleet.canonical import digest_of

    return digest_of(folder.anchors().model_dump(mode="json"))[:32]


def _row_facts(row: RoleStatus) -> dict[str, Any]:
    return {
        "role": row.role,
        "repository": row.repository,
        "keys": list(row.keys),
        "threshold": row.threshold,
        "version": row.version,
        "expires": row.expires.isoformat() if row.expires else None,
        "state": row.state,
    }


def _row_cells(row: RoleStatus) -> tuple[str, ...]:
    left = row.expires_in_s
    if row.state == "server" or left is None:
        when = "-"
    elif left <= 0:
        when = f"{-left / _DAY_S:.0f} days ago"
    else:
        when = f"in {left / _DAY_S:.0f} days"
    signs = f"{row.threshold} of {len(row.keys)}"
    version = str(row.version) if row.version else "-"
    return (row.role, row.repository, ", ".join(row.keys), signs, version, when, _STATES[row.state])
