"""People of the fleet server: accounts, roles, sign-in, API tokens. Every change is an audit event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access
from cellfleet.fleet.people.access import ROLES, Person, Role
from cellfleet.fleet.people.rate_limits import RateLimits
from cellfleet.fleet.refusals import bad_request, conflict, forbidden, not_found, unauthorized
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import ApiToken, User, WebSession
from cellfleet.wire.base import is_key
from cellfleet.wire.reason import because

LEAST_PASSWORD = 10


@dataclass(frozen=True)
class OpenedSession:
    """A new session of a person."""

    name: str
    role: Role
    csrf: str
    expires_at: datetime


def sign_in(context: Context, name: str, password: str, address: str) -> tuple[str, OpenedSession]:
    """Open a session: the cookie's value, and the session.

    Raises:
        RequestRefused: 401 wrong name or password (the answer does not say which); 429 too many attempts.
    """
    limits, per_min = context.service(RateLimits), context.settings.max_logins_per_min
    limits.take(f"sign-in-from:{address}", per_min, what="sign-ins from this address")
    limits.take(f"sign-in-as:{name}", per_min, what="sign-ins for this name")
    with context.reading() as db:
        user = db.scalars(select(User).where(User.name == name)).one_or_none()
    matches = access.password_matches(
        user.password_hash if user else None, password
    )  # slow on purpose: no session open
    with context.sessions() as db:
        if user is not None and matches and not user.disabled:
            secret, row = access.open_session(db, context, user)
            audit.record(db, context, f"person:{user.name}", "session.opened", f"person:{user.name}", address=address)
            return secret, OpenedSession(user.name, cast(Role, user.role), row.csrf, row.expires_at)
        audit.record(db, context, "nobody", "session.refused", f"person:{name}", address=address)
    raise unauthorized("wrong-password", because("problem.wrong-password"), hint="an admin can set a new password")


def sign_out(db: Session, context: Context, by: Person) -> None:
    """End the session; a token stays as it is."""
    if by.via == "session":
        db.execute(delete(WebSession).where(WebSession.token_sha256 == by.key))
        audit.record(db, context, by.actor, "session.closed", by.actor)


def listing(db: Session) -> Sequence[User]:
    """All people, by name."""
    return db.scalars(select(User).order_by(User.name)).all()


def find(db: Session, name: str) -> User:
    """Raises:
    RequestRefused: 404.
    """
    user = db.scalars(select(User).where(User.name == name)).one_or_none()
    if user is None:
        raise not_found(f"person {name}")
    return user


def add(db: Session, context: Context, actor: str, name: str, role: str, password: str) -> User:
    """Make an account.

    Raises:
        RequestRefused: 409 the name is taken; 422 an invalid name, role or password.
    """
    _check(name, role)
    row = {
        "name": name, "password_hash": _hashed(password), "role": role, "disabled": False,
        "created_at": context.clock.now(),
    }  # fmt: skip
    if not insert_or_ignore(db, User, [row]):
        raise conflict(
            "name-taken", because("problem.person-exists", name=name), hint="choose another name, or change that one"
        )
    audit.record(db, context, actor, "person.added", f"person:{name}", role=role)
    return find(db, name)


def change(
    db: Session,
    context: Context,
    actor: str,
    name: str,
    *,
    role: str | None = None,
    password: str | None = None,
    disabled: bool | None = None,
) -> User:
    """Change an account; a new password or being disabled ends its sessions.

    Raises:
        RequestRefused: 404; 409 it is the last admin; 422.
    """
    _lock_admins(db)
    user = find(db, name)
    if role is not None:
        _check(name, role)
    leaves = user.role == "admin" and not user.disabled and (role not in (None, "admin") or disabled is True)
    if leaves and _admins(db) == 1:
        raise conflict(
            "last-admin", because("problem.last-admin", name=name), hint="give another account the role admin first"
        )
    changes: dict[str, Any] = {"role": role, "disabled": disabled, "password": None if password is None else "changed"}
    user.role = role if role is not None else user.role
    user.disabled = disabled if disabled is not None else user.disabled
    if password is not None:
        user.password_hash = _hashed(password)
    if password is not None or disabled:
        db.execute(delete(WebSession).where(WebSession.user_id == user.id))
    audit.record(
        db, context, actor, "person.changed", f"person:{name}", **{k: v for k, v in changes.items() if v is not None}
    )
    return user


def _lock_admins(db: Session) -> None:
    """Lock the admins until the transaction ends, so that two requests cannot remove the last two admins."""
    db.scalars(select(User.id).where(User.role == "admin").order_by(User.id).with_for_update()).all()


def _admins(db: Session) -> int:
    query = select(func.count()).select_from(User).where(User.role == "admin", User.disabled.is_(False))
    return db.scalars(query).one()


def _check(name: str, role: str) -> None:
    if not is_key(name) or len(name) > 64:
        raise bad_request(
            "bad-name", "a name has 1 to 64 letters, digits and . _ @ -, and begins with a letter or digit"
        )
    if role not in ROLES:
        raise bad_request("bad-role", f"{role!r} is not a role", hint=f"roles are {', '.join(ROLES)}")


def _hashed(password: str) -> str:
    if len(password) < LEAST_PASSWORD:
        raise bad_request("weak-password", because("problem.weak-password", limit=LEAST_PASSWORD))
    return access.hash_password(password)


def tokens(db: Session, by: Person) -> Sequence[tuple[ApiToken, str]]:
    """API tokens that still count, with their owners' names: an admin sees all, others their own."""
    query = select(ApiToken, User.name).join(User, User.id == ApiToken.user_id).order_by(ApiToken.id)
    query = query.where(ApiToken.revoked_at.is_(None))
    if not by.may("admin"):
        query = query.where(User.id == by.id)
    return [(row, name) for row, name in db.execute(query)]


def add_token(
    db: Session, context: Context, by: Person, name: str, role: str, valid_days: float | None
) -> tuple[str, ApiToken]:
    """Create an API token of the caller: the token, which is shown only once, and its row.

    Raises:
        RequestRefused: 403 a role above the caller's; 422.
    """
    if role not in ROLES:
        raise bad_request("bad-role", f"{role!r} is not a role", hint=f"roles are {', '.join(ROLES)}")
    by.need(role)
    secret, digest = access.new_secret(access.API_PREFIX)
    now = context.clock.now()
    row = ApiToken(
        user_id=by.id,
        name=name,
        token_sha256=digest,
        role=role,
        created_at=now,
        expires_at=None if valid_days is None else now + timedelta(days=valid_days),
    )
    db.add(row)
    db.flush()
    audit.record(db, context, by.actor, "token.made", f"token:{row.id}", name=name, role=role)
    return secret, row


def revoke_token(db: Session, context: Context, by: Person, number: int) -> None:
    """Revoke an API token at once: the caller's own, or any token for an admin.

    Raises:
        RequestRefused: 404; 403.
    """
    row = db.get(ApiToken, number)
    if row is None or (row.user_id != by.id and not by.may("admin")):
        raise not_found(f"token {number}") if row is None else forbidden("that token belongs to another account")
    db.execute(
        update(ApiToken)
        .where(ApiToken.id == number, ApiToken.revoked_at.is_(None))
        .values(revoked_at=context.clock.now())
    )
    audit.record(db, context, by.actor, "token.revoked", f"token:{number}", name=row.name)
