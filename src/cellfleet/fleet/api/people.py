"""Accounts and their API tokens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from cellfleet.fleet.api.dependencies import Admin, Ctx, Db, KeyPath, Listing, RowId, Viewer
from cellfleet.fleet.people import accounts
from cellfleet.fleet.people.access import Role
from cellfleet.fleet.store.models import ApiToken, User
from cellfleet.wire import Message
from cellfleet.wire.base import Key, Time

router = APIRouter(prefix="/api/v1", tags=["people"])


class PersonRequest(Message):
    """A new account."""

    name: str = Field(min_length=1, max_length=64, examples=["anna"])
    role: Role = Field(examples=["operator"])
    password: str = Field(min_length=1, max_length=1000, examples=["correct horse battery staple"])


class PersonChange(Message):
    """Fields to change; absent fields keep their values."""

    role: Role | None = Field(default=None, examples=["approver"])
    password: str | None = Field(default=None, min_length=1, max_length=1000, examples=["another long passphrase"])
    disabled: bool | None = Field(default=None, examples=[False])


class PersonAnswer(Message):
    """An account."""

    name: str = Field(examples=["anna"])
    role: str = Field(examples=["operator"])
    disabled: bool
    created_at: Time


class ApiTokenRequest(Message):
    """A new API token of the caller; its role is at most the role of the caller."""

    name: Key = Field(examples=["ci"])
    role: Role = Field(examples=["viewer"])
    valid_days: float | None = Field(default=None, gt=0, le=3650, examples=[90])


class TokenAnswer(Message):
    """An API token, without its secret."""

    id: int = Field(examples=[4])
    name: str = Field(examples=["ci"])
    owner: str = Field(examples=["anna"])
    role: str = Field(examples=["viewer"])
    created_at: Time
    expires_at: Time | None = None


class NewToken(TokenAnswer):
    """An API token with its secret, which is shown only once."""

    token: str = Field(examples=["cft_..."])


@router.get("/users", summary="List accounts", description="All accounts, by name. Admins only.")
def list_people(db: Db, _by: Admin) -> Listing[PersonAnswer]:
    return Listing[PersonAnswer](items=tuple(_person(u) for u in accounts.listing(db)))


@router.post("/users", status_code=201, summary="Add an account", description="Admins only.")
def add_person(context: Ctx, db: Db, by: Admin, body: PersonRequest) -> PersonAnswer:
    return _person(accounts.add(db, context, by.actor, body.name, body.role, body.password))


@router.patch(
    "/users/{name}",
    summary="Change an account",
    description="Role, password, or whether it is disabled. A new password ends its sessions. Admins only.",
)
def change_person(context: Ctx, db: Db, by: Admin, name: KeyPath, body: PersonChange) -> PersonAnswer:
    changed = accounts.change(
        db, context, by.actor, name, role=body.role, password=body.password, disabled=body.disabled
    )
    return _person(changed)


@router.get(
    "/tokens",
    summary="List API tokens",
    description="Tokens of the caller; an admin sees all. Revoked tokens are left out.",
)
def list_tokens(db: Db, by: Viewer) -> Listing[TokenAnswer]:
    return Listing[TokenAnswer](
        items=tuple(TokenAnswer(**_facts(row, owner)) for row, owner in accounts.tokens(db, by))
    )


@router.post("/tokens", status_code=201, summary="Create an API token", description="The secret is shown only once.")
def add_token(context: Ctx, db: Db, by: Viewer, body: ApiTokenRequest) -> NewToken:
    secret, row = accounts.add_token(db, context, by, body.name, body.role, body.valid_days)
    return NewToken(token=secret, **_facts(row, by.name))


@router.delete(
    "/tokens/{number}", status_code=204, summary="Revoke an API token", description="It becomes invalid at once."
)
def revoke_token(context: Ctx, db: Db, by: Viewer, number: RowId) -> None:
    accounts.revoke_token(db, context, by, number)


def _person(user: User) -> PersonAnswer:
    return PersonAnswer(name=user.name, role=user.role, disabled=user.disabled, created_at=user.created_at)


def _facts(row: ApiToken, owner: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "owner": owner,
        "role": row.role,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
    }
