"""Sign-in and sign-out with a browser or an API client."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from cellfleet.fleet.api.dependencies import Ctx, Db, Viewer, address_of, anybody
from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access, accounts
from cellfleet.fleet.people.access import Role
from cellfleet.wire import Message
from cellfleet.wire.base import Time

router = APIRouter(prefix="/api/v1", tags=["session"])


class SignIn(Message):
    """Name and password."""

    name: str = Field(min_length=1, max_length=64, examples=["anna"])
    password: str = Field(min_length=1, max_length=1000, examples=["correct horse battery staple"])


class SessionAnswer(Message):
    """The session's cookie comes with the answer; ``csrf`` goes into the header ``X-CSRF-Token`` of every change."""

    name: str = Field(examples=["anna"])
    role: Role
    csrf: str = Field(examples=["mVb3..."])
    expires_at: Time


class Me(Message):
    """The caller."""

    name: str = Field(examples=["anna"])
    role: Role
    via: str = Field(description="`session` or `token`", examples=["token"])


@router.post(
    "/session",
    status_code=201,
    summary="Sign in",
    description="Sets a cookie. Too many attempts for one name or from one address are refused for a minute.",
    dependencies=[Depends(anybody)],
)
def sign_in(context: Ctx, request: Request, response: Response, body: SignIn) -> SessionAnswer:
    secret, signed_in = accounts.sign_in(context, body.name, body.password, address_of(request))
    set_cookie(context, response, secret)
    return SessionAnswer(name=signed_in.name, role=signed_in.role, csrf=signed_in.csrf, expires_at=signed_in.expires_at)


@router.delete("/session", status_code=204, summary="Sign out", description="Ends the session of the cookie.")
def sign_out(context: Ctx, db: Db, by: Viewer, response: Response) -> None:
    accounts.sign_out(db, context, by)
    drop_cookie(response)


@router.get("/me", summary="Who am I?", description="The account of the token or session of the request.")
def me(by: Viewer) -> Me:
    return Me(name=by.name, role=by.role, via=by.via)


def set_cookie(context: Context, response: Response, secret: str) -> None:
    """Put the session's cookie into an answer: not readable by scripts, sent by this site only."""
    response.set_cookie(
        access.COOKIE,
        secret,
        max_age=int(context.settings.session_s),
        path="/",
        httponly=True,
        samesite="lax",
        secure=context.address.startswith("https:"),
    )


def drop_cookie(response: Response) -> None:
    """Remove the session's cookie from the browser."""
    response.delete_cookie(access.COOKIE, path="/")
