"""The network as a small interface: HTTP requests, whole or streamed. Tests and simulators bring their own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cellfleet.errors import NetworkError

CHUNK = 1 << 16


@dataclass(frozen=True)
class Response:
    """An answer: status, headers (names in lower case), and the whole body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Stream:
    """An answer whose body is read piece by piece; each piece raises NetworkError when the line breaks."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Http(Protocol):
    """Sends requests. Any status is an answer; only a network that fails is an error."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """Send a request and read the whole answer.

        Raises:
            NetworkError: no connection, a timeout, a connection that broke.
        """
        ...

    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> contextlib.AbstractContextManager[Stream]:
        """GET with a body that is read piece by piece; NetworkError as above."""
        ...


class SystemHttp:
    """HTTP and HTTPS through urllib3, which keeps connections open. No redirect is followed, nothing is retried.

    Args:
        timeout_s: timeout of connecting and of every read.
        max_bytes: an answer of ``request`` with a longer body is refused.
    """

    def __init__(self, timeout_s: float = 10.0, max_bytes: int = 64 << 20) -> None:
        import urllib3

        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._pool = urllib3.PoolManager(num_pools=4, maxsize=4, retries=False)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        with self._open(method, url, headers, body, timeout_s) as answer:
            parts, size = [], 0
            for chunk in answer.chunks:
                size += len(chunk)
                if size > self._max_bytes:
                    raise NetworkError(f"{url}: the answer is longer than {self._max_bytes} bytes")
                parts.append(chunk)
            return Response(answer.status, answer.headers, b"".join(parts))

    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> contextlib.AbstractContextManager[Stream]:
        return self._open("GET", url, headers, None, timeout_s)

    @contextlib.contextmanager
    def _open(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes | None, timeout_s: float | None
    ) -> Iterator[Stream]:
        import urllib3

        try:
            raw = self._pool.request(
                method,
                url,
                headers=dict(headers or {}),
                body=body,
                timeout=timeout_s or self._timeout_s,
                preload_content=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            raise _network_error(url, e) from e
        try:
            names = {k.lower(): v for k, v in raw.headers.items()}
            yield Stream(raw.status, names, _chunks(url, raw))
        finally:
            raw.drain_conn() if raw.length_remaining == 0 else raw.close()  # never drain what may have no end
            raw.release_conn()


def _chunks(url: str, raw: object) -> Iterator[bytes]:
    import urllib3

    assert isinstance(raw, urllib3.BaseHTTPResponse)
    try:
        while chunk := raw.read1(CHUNK, decode_content=True):  # what is there: a server that trickles must be noticed
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError) as e:
        raise _network_error(url, e) from e


def _network_error(url: str, cause: Exception) -> NetworkError:
    return NetworkError(f"{url}: {_words(cause)}", hint="check the address and the network; is the server running?")


def _words(cause: Exception) -> str:
    """The reason for people, without the names of urllib3's objects."""
    reason = getattr(cause, "reason", None) or cause
    if isinstance(reason, Exception) and len(reason.args) == 2 and isinstance(reason.args[1], Exception):
        reason = reason.args[1]  # ("Connection aborted.", RemoteDisconnected(...))
    text = re.sub(r"^\w*Connection\w*\([^)]*\):\s*|\[Errno -?\d+\]\s*", "", str(reason))
    return text.replace("Failed to establish a new connection: ", "").strip() or type(reason).__name__
