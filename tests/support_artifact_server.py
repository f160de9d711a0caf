"""A server of one artifact on loopback that behaves, breaks off, lies, or changes its mind, as a test tells it."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler


@dataclass
class Behaviour:
    """How the server answers.

    Attributes:
        stop_after: bytes of a body after which the connection breaks; None: never.
        hold: it goes on sending nothing after ``stop_after`` until ``released``.
        seen: the Range header of each request, or an empty text.
    """

    content: bytes
    etag: str = '"one"'
    status: int = 200
    ranges: bool = True
    lie_about_range: bool = False
    stop_after: int | None = None
    hold: bool = False
    chunked: bool = False
    seen: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def behaviour(self) -> Behaviour:
        found: Behaviour = self.server.behaviour  # type: ignore[attr-defined]
        return found

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):  # a client that leaves in the middle
            super().handle()

    def do_GET(self) -> None:
        b = self.behaviour
        b.seen.append(self.headers.get("Range", ""))
        b.headers.append(dict(self.headers.items()))
        if b.status != 200:
            self._head(b.status, {"Content-Length": "0"})
            return
        start = self._start(b)
        if start >= len(b.content):
            self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(b.content)}"})
            return
        body = b.content[start:]
        extra = {"ETag": b.etag} if b.etag else {}
        if start:
            first = start - 1 if b.lie_about_range else start
            extra["Content-Range"] = f"bytes {first}-{len(b.content) - 1}/{len(b.content)}"
        extra |= {"Transfer-Encoding": "chunked"} if b.chunked else {"Content-Length": str(len(body))}
        self._head(206 if start else 200, extra)
        self._body(b, body)

    def _start(self, b: Behaviour) -> int:
        asked = self.headers.get("Range", "")
        same = self.headers.get("If-Range", b.etag) == b.etag
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked and b.ranges and same else 0

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, b: Behaviour, body: bytes) -> None:
        with contextlib.suppress(OSError):
            sent = body[: b.stop_after]
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(sent), sent) if b.chunked else sent)
            self.wfile.flush()
            if b.stop_after is not None and len(sent) < len(body):
                if b.hold:
                    b.held.set()
                    b.released.wait(60)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@dataclass
class Server:
    url: str
    behaviour: Behaviour
