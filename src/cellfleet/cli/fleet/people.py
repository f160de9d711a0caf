"""``cellfleet fleet login | user | token``: users. ``user`` edits the database directly, so that the first admin can be made."""

from __future__ import annotations

import getpass
import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellfleet.cli.common import JsonOption, ProjectOption, SetOption, print_json, print_table, project_of, say
from cellfleet.cli.fleet.client import Credentials, FleetClient, ServerOption, open_client
from cellfleet.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from cellfleet.fleet.context import Context

StdinOption = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
RoleOption = Annotated[str, typer.Option("--role", help="viewer, operator, approver or admin.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]
_LOCAL = "person:local administrator"
user_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
token_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``cellfleet fleet``."""
    app.command()(login)
    app.add_typer(user_app, name="user", help="Users, in the server's database.")
    app.add_typer(token_app, name="token", help="Your API tokens.")


def login(
    name: NameArgument,
    server: ServerOption = "",
    password_stdin: StdinOption = False,
    valid_days: Annotated[float, typer.Option("--valid-days", help="Lifetime of the stored API token, days.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """Sign in with a password and store an API token in the user's configuration folder (readable by its owner only)."""
    kept = Credentials.load()
    url = (server or kept.default).rstrip("/")
    if not url:
        raise ConfigError("no fleet server is set", hint="use --server http://host:port")
    client = FleetClient(url)
    body = {"name": name, "password": _password("Password: ", password_stdin)}
    answer = client.api.request("POST", "/api/v1/session", json.dumps(body).encode())
    session = json.loads(answer.body)
    cookie = next(iter(SimpleCookie(answer.headers.get("set-cookie", "")).values()), None)
    if cookie is None:
        raise ConfigError(f"{url} sets no cookie", hint="check that this is the address of a fleet server")
    shown = {"Cookie": f"{cookie.key}={cookie.coded_value}", "X-CSRF-Token": session["csrf"]}
    client = FleetClient(url, session=shown)
    wanted = {"name": f"login-{platform.node() or 'here'}"[:64], "role": session["role"], "valid_days": valid_days}
    made = client.post("/api/v1/tokens", wanted)
    client.delete("/api/v1/session")
    Credentials(url, kept.tokens | {url: made["token"]}).save()
    facts = {"server": url, "name": name, "role": session["role"], "expires_at": made["expires_at"]}
    if as_json:
        print_json(facts | {"kept_in": str(Credentials.path())})
    else:
        say(f"signed in to {url} as {name} ({session['role']}); the token is stored in {Credentials.path()}")


@user_app.command("add")
def user_add(
    name: NameArgument,
    role: RoleOption = "viewer",
    password_stdin: StdinOption = False,
    token: Annotated[bool, typer.Option("--token", help="Also make an API token and print it.")] = False,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an account in the server's database; the server does not have to run."""
    from cellfleet.fleet.people import accounts

    password = _password(f"Password of {name}: ", password_stdin, twice=True)
    with _database(project, settings) as (context, db):
        user = accounts.add(db, context, _LOCAL, name, role, password)
        secret = _local_token(db, context, name) if token else ""
        facts = {"name": user.name, "role": user.role} | ({"token": secret} if secret else {})
    if as_json:
        print_json(facts)
    else:
        say(f"{name} is now {role}")
        if secret:
            say(secret)


@user_app.command("change")
def user_change(
    name: NameArgument,
    role: Annotated[str | None, typer.Option("--role", help="viewer, operator, approver or admin.")] = None,
    password: Annotated[bool, typer.Option("--password", help="Prompt for a new password.")] = False,
    password_stdin: StdinOption = False,
    disabled: Annotated[bool | None, typer.Option("--disable/--enable", help="Block or allow sign-in.")] = None,
    project: ProjectOption = Path(),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an account in the server's database; a new password ends its sessions."""
    from cellfleet.fleet.people import accounts

    wanted = password or password_stdin
    new = _password(f"New password of {name}: ", password_stdin, twice=True) if wanted else None
    with _database(project, settings) as (context, db):
        user = accounts.change(db, context, _LOCAL, name, role=role, password=new, disabled=disabled)
        facts = {"name": user.name, "role": user.role, "disabled": user.disabled}
    if as_json:
        print_json(facts)
    else:
        say(f"{name} is {facts['role']}" + (", disabled" if facts["disabled"] else ""))


@user_app.command("list")
def user_list(project: ProjectOption = Path(), settings: SetOption = None, as_json: JsonOption = False) -> None:
    """List the accounts in the server's database."""
    from cellfleet.fleet.people import accounts

    with _database(project, settings) as (_context, db):
        rows = [
            {"name": u.name, "role": u.role, "disabled": u.disabled, "created_at": u.created_at.isoformat()}
            for u in accounts.listing(db)
        ]
    if as_json:
        print_json(rows)
    else:
        print_table("people", ("name", "role", "disabled", "since"), [tuple(r.values()) for r in rows])


@token_app.command("add")
def token_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Purpose of the token.")],
    role: RoleOption = "viewer",
    valid_days: Annotated[
        float | None, typer.Option("--valid-days", help="Lifetime, days (default: unlimited).")
    ] = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make an API token; its secret is printed only once."""
    made = open_client(server).post("/api/v1/tokens", {"name": name, "role": role, "valid_days": valid_days})
    print_json(made) if as_json else say(str(made["token"]))


@token_app.command("list")
def token_list(server: ServerOption = "", as_json: JsonOption = False) -> None:
    """List your API tokens (an admin sees all tokens)."""
    rows = list(open_client(server).all("/api/v1/tokens"))
    if as_json:
        print_json(rows)
    else:
        columns = ("id", "name", "owner", "role", "created_at", "expires_at")
        print_table("API tokens", columns, [tuple(r.get(c) for c in columns) for r in rows])


@token_app.command("revoke")
def token_revoke(
    number: Annotated[int, typer.Argument(metavar="ID", help="Number shown by `token list`.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Revoke an API token; it becomes invalid at once."""
    open_client(server).delete(f"/api/v1/tokens/{number}")
    print_json({"revoked": number}) if as_json else say(f"token {number} revoked")


@contextmanager
def _database(project: Path, settings: list[str] | None) -> Iterator[tuple[Context, Session]]:
    from cellfleet.fleet.context import open_context

    context = open_context(project_of(project, settings))
    try:
        with context.sessions() as db:
            yield context, db
    finally:
        context.close()


def _local_token(db: Session, context: Context, name: str) -> str:
    from cellfleet.fleet.people import accounts
    from cellfleet.fleet.people.access import Person, lower

    db.flush()
    user = accounts.find(db, name)
    person = Person(user.id, user.name, lower(user.role, "admin"), "token", "")
    return accounts.add_token(db, context, person, "made with the account", user.role, None)[0]


def _password(prompt: str, from_stdin: bool, *, twice: bool = False) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError("no terminal to prompt for the password", hint="use --password-stdin")
    password = getpass.getpass(prompt)
    if twice and getpass.getpass("Repeat the password: ") != password:
        raise ConfigError("the two passwords differ", hint="nothing was changed; run the command again")
    return password
