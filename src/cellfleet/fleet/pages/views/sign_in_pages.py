"""Signing in and out with a browser."""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from cellfleet.fleet.api.dependencies import address_of
from cellfleet.fleet.api.session import drop_cookie, set_cookie
from cellfleet.fleet.pages.page_request import Form, PageRequest, PageRoute, needs, read_form, safe_next, visit
from cellfleet.fleet.people import accounts
from cellfleet.fleet.refusals import RequestRefused, forbidden
from cellfleet.fleet.store.models import User
from cellfleet.wire.reason import because

router = APIRouter(route_class=PageRoute, include_in_schema=False)
FORM_COOKIE = "cellfleet_form"
"""Against forged sign-ins: the form must carry what this cookie says (there is no session yet)."""


@router.get("/sign-in")
def form(asked: Annotated[PageRequest, Depends(visit)]) -> Response:
    """The form."""
    after = safe_next(asked.asks("next", "/"))
    return RedirectResponse(after, status_code=303) if asked.visitor else _form(asked, after)


def _form(asked: PageRequest, after: str, name: str = "", problem: RequestRefused | None = None) -> Response:
    with asked.reading() as db:
        no_accounts = db.scalar(select(User.id).limit(1)) is None
    token = asked.request.cookies.get(FORM_COOKIE, "")
    token = token if 20 <= len(token) <= 80 and token.isascii() else secrets.token_urlsafe(24)
    host = asked.request.url.netloc[:200]
    response = asked.show(
        "sign_in.html", problem.status if problem else 200, next=after, name=name, no_accounts=no_accounts, host=host,
        problem=problem, form_token=token,
    )  # fmt: skip
    https = asked.context.address.startswith("https:")
    response.set_cookie(FORM_COOKIE, token, path="/sign-in", httponly=True, samesite="strict", secure=https)
    if problem is not None:
        response.headers.update({k: v for k, v in problem.headers.items() if k.lower() == "retry-after"})
    return response


@router.post("/sign-in")
async def sign_in(request: Request, asked: Annotated[PageRequest, Depends(visit)]) -> Response:
    """Sign in, then redirect to the requested page."""
    given = await read_form(request)
    return await run_in_threadpool(_sign_in, request, asked, given)


def _sign_in(request: Request, asked: PageRequest, given: Form) -> Response:
    name, after = given.text("name", longest=64), safe_next(given.text("next", longest=2000) or "/")
    expected = request.cookies.get(FORM_COOKIE, "")
    if not expected or not hmac.compare_digest(expected.encode(), given.fields.get("form", "").encode()):
        raise forbidden(because("problem.csrf-browser"), code="csrf", hint=because("hint.reload"))
    try:
        cookie, _ = accounts.sign_in(asked.context, name, given.fields.get("password", "")[:1000], address_of(request))
    except RequestRefused as e:
        return _form(asked, after, name, e)
    response = asked.go(after)
    set_cookie(asked.context, response, cookie)
    return response


@router.post("/sign-out")
def sign_out(posted: Annotated[tuple[PageRequest, Form], Depends(needs("viewer"))]) -> Response:
    """Sign out."""
    asked, _ = posted
    with asked.writing() as db:
        accounts.sign_out(db, asked.context, asked.person)
    response = asked.go("/sign-in", "signed-out")
    drop_cookie(response)
    return response
