"""Who may do what: roles, passwords (argon2), sessions, API tokens of people, access tokens of devices.

Secrets are random and only their digests are stored; a leaked database gives no access.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.canonical import sha256_hex
from cellfleet.fleet.context import Context
from cellfleet.fleet.refusals import RequestRefused, forbidden, unauthorized
from cellfleet.fleet.store.models import ApiToken, Device, DeviceToken, User, WebSession
from cellfleet.wire.reason import because

ROLES = ("viewer", "operator", "approver", "admin")
Role = Literal["viewer", "operator", "approver", "admin"]
COOKIE = "cellfleet_session"
API_PREFIX, DEVICE_PREFIX, CLAIM_PREFIX = "cft_", "cfd_", "cfc_"

HASHER = PasswordHasher()
"""Argon2id with the parameters of RFC 9106 for little memory (64 MiB, 3 passes, 4 lanes)."""


@dataclass(frozen=True)
class Person:
    """A person who is signed in.

    Attributes:
        role: of this sign-in; an API token can have a lower role than its account.
        via: ``session`` (a browser) or ``token`` (a program).
        csrf: that forms of this session must carry; empty for a token.
        key: digest of the cookie's or token's secret; for limits and for signing out.
    """

    id: int
    name: str
    role: Role
    via: Literal["session", "token"]
    key: str
    csrf: str = ""

    @property
    def actor(self) -> str:
        """As audit events name them."""
        return f"person:{self.name}"

    def may(self, role: str) -> bool:
        """Has this role or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def need(self, role: str) -> None:
        """Raises:
        RequestRefused: 403, the role is lower than ``role``.
        """
        if not self.may(role):
            reason = because("problem.role", role=role, name=self.name, have=self.role)
            raise forbidden(reason, hint=because("hint.ask-admin"))


@dataclass(frozen=True)
class Caller:
    """A device with a valid access token."""

    device_id: str
    name: str

    @property
    def actor(self) -> str:
        """As audit events name it."""
        return f"device:{self.device_id}"


def lower(a: str, b: str) -> Role:
    """The lower of two roles."""
    return cast(Role, ROLES[min(ROLES.index(a), ROLES.index(b))])


def hash_password(password: str) -> str:
    """Argon2id hash with its salt and parameters, as a string."""
    return HASHER.hash(password)


def password_matches(stored: str | None, password: str) -> bool:
    """The password is the one of the hash. For None (no such person) it takes as long and is False."""
    try:
        return HASHER.verify(stored or _unmatchable_hash(), password) and stored is not None
    except (Argon2Error, InvalidHashError):
        return False


def _unmatchable_hash() -> str:
    """A hash that no password has and that takes as long to check as any other."""
    cost = f"m={HASHER.memory_cost},t={HASHER.time_cost},p={HASHER.parallelism}"
    return f"$argon2id$v=19${cost}${'A' * 22}${'A' * 43}"


def new_secret(prefix: str) -> tuple[str, str]:
    """A random token with a prefix that shows its kind, and the digest that is stored instead of it."""
    secret = prefix + secrets.token_urlsafe(32)
    return secret, sha256_hex(secret.encode())


def open_session(db: Session, context: Context, user: User) -> tuple[str, WebSession]:
    """Sign a person in: the cookie's value, and the session with its token against forged forms."""
    now = context.clock.now()
    secret, digest = new_secret("")
    row = WebSession(
        token_sha256=digest,
        user_id=user.id,
        csrf=secrets.token_urlsafe(32),
        created_at=now,
        expires_at=now + timedelta(seconds=context.settings.session_s),
    )
    db.add(row)
    db.flush()
    return secret, row


def find_session(db: Session, now: datetime, cookie: str) -> Person | None:
    """The person of a cookie; None when it is unknown, has expired, or the person may not come in any more."""
    digest = sha256_hex(cookie.encode("utf-8", "replace"))
    query = select(WebSession, User).join(User, User.id == WebSession.user_id).where(WebSession.token_sha256 == digest)
    found = db.execute(query).first()
    if found is None or found[0].expires_at <= now or found[1].disabled:
        return None
    session, user = found
    return Person(user.id, user.name, cast(Role, user.role), "session", digest, csrf=session.csrf)


def find_api_token(db: Session, now: datetime, token: str) -> Person | None:
    """The person of an API token; None when it is unknown, expired, revoked, or the person may not come in any more."""
    digest = sha256_hex(token.encode("utf-8", "replace"))
    query = select(ApiToken, User).join(User, User.id == ApiToken.user_id).where(ApiToken.token_sha256 == digest)
    found = db.execute(query).first()
    if found is None:
        return None
    row, user = found
    if user.disabled or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    return Person(user.id, user.name, lower(row.role, user.role), "token", digest)


def issue_device_token(db: Session, context: Context, device: Device) -> tuple[str, datetime]:
    """A short-lived access token, and when it ends."""
    secret, digest = new_secret(DEVICE_PREFIX)
    until = context.clock.now() + timedelta(seconds=context.settings.device_token_s)
    db.add(DeviceToken(token_sha256=digest, device_id=device.id, generation=device.token_generation, expires_at=until))
    return secret, until


def find_device(db: Session, now: datetime, token: str) -> Caller:
    """The device of an access token.

    Raises:
        RequestRefused: 401, unknown or expired; 403 by the device's state.
    """
    digest = sha256_hex(token.encode("utf-8", "replace"))
    query = (
        select(DeviceToken.expires_at, Device.id, Device.name, Device.state)
        .join(Device, Device.id == DeviceToken.device_id)
        .where(DeviceToken.token_sha256 == digest)
    )
    found = db.execute(query).first()
    if found is None or found[0] <= now:
        raise unauthorized("token-expired", "this access token is unknown or has expired", hint="ask for another one")
    refuse_state(found.name, found.state)
    return Caller(found.id, found.name)


def refuse_state(name: str, state: str) -> None:
    """Raises:
    RequestRefused: 403 ``pending``, ``rejected`` or ``revoked``: a device that is not a member of the fleet.
    """
    if state == "accepted":
        return
    texts = {
        "pending": (f"{name} waits to be accepted", "an operator accepts it with `cellfleet fleet accept`"),
        "rejected": (f"{name} was rejected", "provision it again with a new key and a new claim token"),
        "revoked": (f"{name} was revoked", "provision it again with a new key and a new claim token"),
    }
    detail, hint = texts.get(state, (f"{name} is {state}", ""))
    raise RequestRefused(403, state, detail, hint=hint)


def check_csrf(person: Person, given: str) -> None:
    """A browser's request that changes something must carry the session's token against forged forms.

    Raises:
        RequestRefused: 403 ``csrf``.
    """
    if person.via == "session" and not hmac.compare_digest(person.csrf.encode(), given.encode("utf-8", "replace")):
        raise forbidden(because("problem.csrf-session"), code="csrf", hint=because("hint.reload"))
