"""Around every request: a number for the log, a limit of size, headers that protect browsers. Plain ASGI."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellfleet.wire.features import ANNOUNCEMENT

log = logging.getLogger(__name__)

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class TooLarge(HTTPException):
    """The request's body exceeds the limit."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(413, f"the request is too large; the limit is {max_bytes} bytes", {"Connection": "close"})


class BodyLimit:
    """Refuses a body that is too long before it is read: by its announced length, else as soon as it gets too long."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        too_long = announced.isascii() and announced.isdecimal() and int(announced[:20]) > self.max_bytes
        count = 0

        async def counted() -> Message:
            nonlocal count
            if too_long:
                raise TooLarge(self.max_bytes)
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.max_bytes:
                raise TooLarge(self.max_bytes)
            return message

        await self.app(scope, counted, send)


class Envelope:
    """Gives every request a number, which is in the log and in the answer; puts SECURITY_HEADERS and the features of
    the wire that this server understands on every answer.

    Args:
        defect: makes the answer to a request that failed by an internal error, which is logged.
    """

    def __init__(self, app: ASGIApp, *, https: bool, defect: Callable[[Scope], ASGIApp]) -> None:
        self.app, self.defect = app, defect
        self.headers = SECURITY_HEADERS | {k.lower(): v for k, v in ANNOUNCEMENT.items()}
        if https:
            self.headers["strict-transport-security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        number = secrets.token_hex(6)
        scope.setdefault("state", {})["request_id"] = number
        began, status, began_answer = time.monotonic(), 500, False

        async def sealed(message: Message) -> None:
            nonlocal status, began_answer
            if message["type"] == "http.response.start":
                status, began_answer = message["status"], True
                headers = MutableHeaders(scope=_with_headers(message))
                headers["x-request-id"] = number
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(("/api/", "/v1/")):
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, sealed)
        except Exception:
            log.exception("%s %s %s failed", number, scope["method"], _shown(scope["path"]))
            if began_answer:
                raise
            await self.defect(scope)(scope, receive, sealed)
        finally:
            ms = 1000 * (time.monotonic() - began)
            log.debug("%s %s %s -> %d in %.1f ms", number, scope["method"], _shown(scope["path"]), status, ms)


def _with_headers(message: Message) -> Any:
    message.setdefault("headers", [])
    return message


def _shown(path: str) -> str:
    """A path as a log may hold it: one line, limited length."""
    return path[:300].encode("unicode_escape").decode("ascii")
