"""What endpoints ask for: the context, a session of the database, who is asking, and a portion of a list.

::

    @router.post("/groups", status_code=201)
    def make(context: Ctx, db: Db, by: Operator, body: GroupRequest) -> GroupAnswer: ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field
from sqlalchemy.orm import Session

from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access
from cellfleet.fleet.people.access import Caller, Person
from cellfleet.fleet.people.rate_limits import RateLimits
from cellfleet.fleet.refusals import RequestRefused, forbidden, unauthorized
from cellfleet.wire import Message
from cellfleet.wire.base import Text
from cellfleet.wire.features import HEADER, read_announcement

T = TypeVar("T")
_SAFE = ("GET", "HEAD", "OPTIONS")
CSRF_HEADER = "x-csrf-token"

_person_bearer = HTTPBearer(
    scheme_name="ApiToken", bearerFormat="cft_...", description="API token of an account.", auto_error=False
)
_device_bearer = HTTPBearer(
    scheme_name="DeviceToken",
    bearerFormat="cfd_...",
    description="Short-lived access token of a device, from POST /api/v1/devices/token.",
    auto_error=False,
)
_cookie = APIKeyCookie(
    name=access.COOKIE,
    scheme_name="Session",
    description=f"A browser's session; changes need the header `{CSRF_HEADER}` with its token.",
    auto_error=False,
)


async def context_of(request: Request) -> Context:
    """The context of the application."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


Ctx = Annotated[Context, Depends(context_of)]


def database(context: Ctx, request: Request) -> Iterator[Session]:
    """A session that is committed before the answer is sent. GET reads only. It begins at its first statement."""
    opened = context.reading() if request.method in _SAFE else context.sessions()
    with opened as db:
        yield db


Db = Annotated[Session, Depends(database, scope="function")]


class _Asks:
    """A dependency that returns the Person; it refuses unknown callers and lower roles."""

    def __init__(self, role: str) -> None:
        self.role = role

    def __call__(
        self,
        request: Request,
        context: Ctx,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_person_bearer)],
        cookie: Annotated[str | None, Security(_cookie)],
    ) -> Person:
        person = person_of(context, bearer.credentials if bearer else None, cookie)
        if person is None:
            anybody(request, context)  # slows down guessing of tokens
            raise unauthorized(
                "not-signed-in", "not signed in, or the session has ended", hint="sign in, or send a valid API token"
            )
        context.service(RateLimits).take(f"person:{person.key}", context.settings.max_requests_per_min, what="requests")
        if request.method not in _SAFE:
            access.check_csrf(person, request.headers.get(CSRF_HEADER, ""))
        person.need(self.role)
        return person


def person(role: str) -> Any:
    """A dependency: a signed-in account with at least this role."""
    return Depends(_ASKS[role])


_ASKS = {role: _Asks(role) for role in access.ROLES}
Viewer = Annotated[Person, Depends(_ASKS["viewer"])]
Operator = Annotated[Person, Depends(_ASKS["operator"])]
Approver = Annotated[Person, Depends(_ASKS["approver"])]
Admin = Annotated[Person, Depends(_ASKS["admin"])]


def person_of(context: Context, bearer: str | None, cookie: str | None) -> Person | None:
    """The account of this API token or cookie; None: unknown. A token takes precedence over the cookie."""
    if bearer is None and not cookie:
        return None
    with context.reading() as db:
        now = context.clock.now()
        if bearer is not None:
            if bearer.startswith(access.DEVICE_PREFIX):
                raise forbidden("only for signed-in accounts; a device's token is not enough", hint="use an API token")
            return access.find_api_token(db, now, bearer)
        return access.find_session(db, now, cookie or "")


def device(
    request: Request,
    context: Ctx,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_device_bearer)],
) -> Caller:
    """A dependency: an accepted device with a valid access token."""
    if bearer is None:
        raise unauthorized("no-token", "only for devices; the access token is missing", hint="request an access token")
    if bearer.credentials.startswith(access.API_PREFIX):
        raise forbidden("only for devices; an API token is not enough")
    try:
        with context.reading() as db:
            caller = access.find_device(db, context.clock.now(), bearer.credentials)
    except RequestRefused:
        anybody(request, context)
        raise
    context.service(RateLimits).take(
        f"device:{caller.device_id}", context.settings.max_requests_per_min, what="requests of this device"
    )
    return caller


OfDevice = Annotated[Caller, Depends(device)]


def either(
    request: Request,
    context: Ctx,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_person_bearer)],
    of_device: Annotated[HTTPAuthorizationCredentials | None, Security(_device_bearer)],
    cookie: Annotated[str | None, Security(_cookie)],
) -> Person | Caller:
    """A dependency: a device or a signed-in account."""
    if of_device is not None and of_device.credentials.startswith(access.DEVICE_PREFIX):
        return device(request, context, of_device)
    return _ASKS["viewer"](request, context, bearer, cookie)


OfEither = Annotated[Person | Caller, Depends(either)]


def features_of_peer(
    announced: Annotated[
        str,
        Header(
            alias=HEADER,
            max_length=2000,
            description="Features of the messages that the caller understands; fields of other features are left out.",
            examples=["reasons"],
        ),
    ] = "",
) -> frozenset[str]:
    """A dependency: the features that the caller announced; empty: protocol 1 without features."""
    return read_announcement(announced)


PeerFeatures = Annotated[frozenset[str], Depends(features_of_peer)]


def address_of(request: Request) -> str:
    """The address that a request came from; for rate limits before sign-in."""
    return request.client.host if request.client else "unknown"


def anybody(request: Request, context: Ctx) -> None:
    """A dependency of what needs no sign-in: limited by address."""
    context.service(RateLimits).take(
        f"address:{address_of(request)}", context.settings.max_requests_per_min, what="requests from this address"
    )


class RequiredReason(Message):
    """The reason of a change, for the audit."""

    reason: Text = Field(min_length=1, examples=["the instrument was sold"])


class OptionalReason(Message):
    """The optional reason of a change, for the audit."""

    reason: Text = Field(default="", examples=["it takes debris for cells"])


class Portion(Message):
    """Of a list: at most ``limit`` entries after the entry ``after``."""

    limit: int = 100
    after: str = ""

    @property
    def after_id(self) -> int:
        """``after`` as the number of an entry; 0: from the start."""
        return int(self.after) if self.after.isascii() and self.after.isdecimal() and len(self.after) < 16 else 0


def portion(
    limit: Annotated[int, Query(ge=1, le=1000, description="Greatest number of entries.", examples=[100])] = 100,
    after: Annotated[str, Query(max_length=200, description="`next` of the previous portion.", examples=[""])] = "",
) -> Portion:
    """The query of a list."""
    return Portion(limit=limit, after=after)


InPortions = Annotated[Portion, Depends(portion)]


class Listing(Message, Generic[T]):
    """A portion of a list; ``next`` is the ``after`` of the portion after it, empty at the end."""

    items: tuple[T, ...]
    next: str = Field(default="", examples=[""])


RowId = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[1])]
"""The number of a row in a path."""
DeviceRef = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Id or name.", examples=["XYZ-007"])
]
KeyPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$", examples=["plate-7"])]
"""A name in a path: an experiment, a frame, a group."""
DigestPath = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256.", examples=["0" * 64])]
