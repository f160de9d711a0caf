"""A request for a page: visitor, language, form; a refusal becomes a page too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from cellfleet.fleet.context import Context
from cellfleet.fleet.pages.i18n import Translator, language_of
from cellfleet.fleet.pages.queries.fleet_queries import pending_count
from cellfleet.fleet.pages.rendering import LANGUAGE_COOKIE, Shared, answer
from cellfleet.fleet.people.access import COOKIE, Person, check_csrf, find_session
from cellfleet.fleet.people.rate_limits import RateLimits
from cellfleet.fleet.refusals import RequestRefused, bad_request, unauthorized
from cellfleet.wire.reason import because

MAX_FIELDS, MAX_FIELD_CHARACTERS = 200, 20_000
GREATEST_NUMBER = 1e9


@dataclass(frozen=True)
class Form:
    """The fields of a form, as text."""

    fields: Mapping[str, str]

    def text(self, name: str, *, longest: int = 500) -> str:
        """A field without spaces around it; empty when it is absent.

        Raises:
            RequestRefused: 422, it is too long.
        """
        value = self.fields.get(name, "").strip()
        if len(value) > longest:
            raise bad_request("too-long", f"{name}: {len(value)} characters; the limit is {longest}")
        return value

    def number(self, name: str, default: float) -> float:
        """A field as a number.

        Raises:
            RequestRefused: 422, not a number.
        """
        value = self.text(name, longest=40)
        try:
            made = float(value) if value else default
        except ValueError:
            raise bad_request("not-a-number", f"{name}: {value!r} is not a number") from None
        if not abs(made) <= GREATEST_NUMBER:
            raise bad_request("not-a-number", f"{name}: {value!r} is not a valid number")
        return made


@dataclass(frozen=True)
class PageRequest:
    """A request for a page."""

    request: Request
    context: Context
    language: Translator
    visitor: Person | None
    pending: int

    @property
    def person(self) -> Person:
        """Who is signed in.

        Raises:
            RequestRefused: 401, not signed in.
        """
        if self.visitor is None:
            raise unauthorized("signed-out", "you are not signed in", hint="sign in")
        return self.visitor

    def reading(self) -> AbstractContextManager[Session]:
        """A session that only reads."""
        return self.context.reading()

    def writing(self) -> AbstractContextManager[Session]:
        """A session that commits at its end."""
        return self.context.sessions()

    def asks(self, name: str, default: str = "") -> str:
        """A value of the address."""
        return self.request.query_params.get(name, default)[:500]

    def page_number(self) -> int:
        """The page of a list, from 1."""
        text = self.asks("page", "1")
        return min(int(text), 1_000_000) if text.isascii() and text.isdigit() and int(text) > 0 else 1

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        """Render a template; ``part=live`` gives the part of the page that refreshes by itself."""
        if self.asks("part") == "live" and template.endswith(".html") and self.request.method == "GET":
            live = template.removesuffix(".html") + "_live.html"
            if live in LIVE:
                template = live
        shared = Shared(self.request, self.context, self.visitor, self.language, self.pending)
        return answer(shared, template, status, **values)

    def go(self, address: str, done: str = "") -> Response:
        """Redirect after a form to the page that shows the result."""
        joint = "&" if "?" in address else "?"
        return RedirectResponse(address + (f"{joint}done={done}" if done else ""), status_code=303)


LIVE = (
    "fleet_live.html",
    "device_live.html",
    "deployment_live.html",
    "deployments_live.html",
    "provisioning_live.html",
)


def visit(request: Request) -> PageRequest:
    """Dependency: the visit, signed in or not."""
    context: Context = request.app.state.context
    now, cookie = context.clock.now(), request.cookies.get(COOKIE, "")
    language = language_of(
        request.query_params.get("lang", ""),
        request.cookies.get(LANGUAGE_COOKIE, ""),
        request.headers.get("accept-language", ""),
    )
    person, pending = None, 0
    if cookie:
        with context.reading() as db:
            person = find_session(db, now, cookie)
            pending = pending_count(db) if person else 0
    if person is not None:
        per_min = context.settings.max_requests_per_min
        context.service(RateLimits).take(f"person:{person.key}", per_min, what="requests of this session")
    return PageRequest(request, context, Translator(language), person, pending)


def viewer(asked: Annotated[PageRequest, Depends(visit)]) -> PageRequest:
    """Dependency: a signed-in visitor."""
    asked.person.need("viewer")
    return asked


def needs(role: str) -> Callable[..., Coroutine[Any, Any, tuple[PageRequest, Form]]]:
    """Dependency of a form: signed in, of this session (CSRF), of this role or a higher one."""

    async def checked(request: Request, asked: Annotated[PageRequest, Depends(visit)]) -> tuple[PageRequest, Form]:
        form = await read_form(request)
        check_csrf(asked.person, form.fields.get("csrf", ""))
        asked.person.need(role)
        return asked, form

    return checked


async def read_form(request: Request) -> Form:
    """The fields of the request's form; files are ignored.

    Raises:
        RequestRefused: 422, too many fields or too long ones.
    """
    try:
        data = await request.form(max_files=0, max_fields=MAX_FIELDS)
    except HTTPException as e:
        raise bad_request("not-a-form", str(e.detail)) from e
    fields: dict[str, str] = {}
    for name, value in data.multi_items():
        if isinstance(value, str):
            if len(value) > MAX_FIELD_CHARACTERS:
                raise bad_request("too-long", f"{name[:80]}: {len(value)} characters")
            fields[name[:200]] = value
    return Form(fields)


class PageRoute(APIRoute):
    """A route whose refusals are pages, in the language of the visitor."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestRefused as e:
                return refused(request, e)
            except RequestValidationError:
                return refused(request, RequestRefused(404, "not-found", because("problem.no-page")))

        return handled


def refused(request: Request, refusal: RequestRefused) -> Response:
    """The page of a refusal; a visitor who is not signed in is sent to the sign-in form."""
    if refusal.status == 401 and request.method == "GET" and request.query_params.get("part") != "live":
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(
            f"/sign-in?next={quote(path, safe='/')}" if path != "/" else "/sign-in", status_code=303
        )
    response = error_page(request, refusal)
    for name, value in refusal.headers.items():
        if name.lower() != "www-authenticate":
            response.headers[name] = value
    return response


def error_page(request: Request, problem: RequestRefused) -> Response:
    """A page that says what went wrong and what to do next; it is shown even when the database is away."""
    context: Context = request.app.state.context
    try:
        asked = visit(request)
    except (RequestRefused, SQLAlchemyError):
        accept = request.headers.get("accept-language", "")
        language = language_of("", request.cookies.get(LANGUAGE_COOKIE, ""), accept)
        asked = PageRequest(request, context, Translator(language), None, 0)
    shared = Shared(request, context, asked.visitor, asked.language, asked.pending)
    return answer(shared, "error.html", problem.status, problem=problem)


def safe_next(address: str) -> str:
    """Where to go after signing in: a path of this server, or the first page."""
    parts = urlsplit(address)
    inside = address.startswith("/") and not address.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return address if inside and all(32 < ord(c) < 127 for c in address) and "\\" not in address else "/"


@dataclass(frozen=True)
class Slice:
    """A page of a list, for the links below it."""

    number: int
    size: int
    total: int
    here: Callable[..., str]

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.size

    @property
    def first(self) -> int:
        return min(self.offset + 1, self.total)

    @property
    def last(self) -> int:
        return min(self.offset + self.size, self.total)

    @property
    def before(self) -> str:
        return self.here(page=self.number - 1 if self.number > 2 else None, part=None) if self.number > 1 else ""

    @property
    def after(self) -> str:
        return self.here(page=self.number + 1, part=None) if self.last < self.total else ""


def sliced(asked: PageRequest, total: int, size: int) -> Slice:
    """The page that the address asks for."""
    shared = Shared(asked.request, asked.context, asked.visitor, asked.language)
    return Slice(min(asked.page_number(), max(1, -(-total // size))), size, total, shared.address)


def portion(rows: Sequence[Any], part: Slice) -> Sequence[Any]:
    """The rows of a page of a list that is all in memory."""
    return rows[part.offset : part.offset + part.size]
