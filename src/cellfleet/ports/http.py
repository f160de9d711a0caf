"""The network interface: HTTP requests, complete or streamed. Tests and simulators implement it too."""

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
    """A response: status, headers (names in lower case), and the complete body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Stream:
    """A response whose body is read in chunks; reading a chunk raises NetworkError when the connection breaks."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Http(Protocol):
    """Sends requests. Every HTTP status is a response; only a network failure is an error."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """Send a request and read the complete response.

        Raises:
            NetworkError: no connection, a timeout, or a broken connection.
        """
        ...

    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> contextlib.AbstractContextManager[Stream]:
        """GET with a body that is read in chunks; raises NetworkError as above."""
        ...


class SystemHttp:
    """HTTP and HTTPS through urllib3, which keeps connections open. Redirects are not followed; requests are not retried.

    Args:
        timeout_s: timeout of the connection and of each read, in seconds.
        max_bytes: limit of the body that ``request`` reads.
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
                    raise NetworkError(f"{url}: the response exceeds the limit of {self._max_bytes} bytes")
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
            raw.drain_conn() if raw.length_remaining == 0 else raw.close()  # never drain a body that may not end
            raw.release_conn()


def _chunks(url: str, raw: object) -> Iterator[bytes]:
    import urllib3

    assert isinstance(raw, urllib3.BaseHTTPResponse)
    try:
        while chunk := raw.read1(
            CHUNK, decode_content=True
        ):  # read what has arrived, so that a slow server is detected
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError) as e:
        raise _network_error(url, e) from e


def _network_error(url: str, cause: Exception) -> NetworkError:
    return NetworkError(
        f"{url}: {_reason_text(cause)}", hint="check the address and the network; is the server running?"
    )


def _reason_text(cause: Exception) -> str:
    """The reason without the names of urllib3's objects."""
    reason = getattr(cause, "reason", None) or cause
    if isinstance(reason, Exception) and len(reason.args) == 2 and isinstance(reason.args[1], Exception):
        reason = reason.args[1]  # ("Connection aborted.", RemoteDisconnected(...))
    text = re.sub(r"^\w*Connection\w*\([^)]*\):\s*|\[Errno -?\d+\]\s*", "", str(reason))
    return text.replace("Failed to establish a new connection: ", "").strip() or type(reason).__name__
