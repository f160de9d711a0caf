"""Requests to a fleet server: address, token, announced features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cellfleet.api_client.answers import check
from cellfleet.ports.http import Http, Response
from cellfleet.wire.features import ANNOUNCEMENT, Peer

_UNAUTHORISED = 401


class TokenSource(Protocol):
    """Supplies the token of a client; thread-safe."""

    def headers(self) -> dict[str, str]:
        """``Authorization`` with a currently valid token; empty if there is none.

        Raises:
            NetworkError: the server cannot issue a token now.
            ServerRefuses: the server refuses to issue one.
        """
        ...

    def forget_token(self) -> None:
        """Drop a refused token; the next ``headers()`` returns a new token if possible."""
        ...


class FixedHeaders:
    """Headers that cannot be renewed: an API token, a session cookie, or none."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._headers = dict(headers or {})

    def headers(self) -> dict[str, str]:
        """The given headers."""
        return dict(self._headers)

    def forget_token(self) -> None:
        """Do nothing: these headers cannot be renewed."""


class ApiClient:
    """A client of one fleet server; thread-safe.

    Args:
        base_url: address of the server.
        http: the network.
        tokens: supplies the token of the client.
        peer: records the features that the server announces; clients of one server may share it.
        on_answer: called with every response.
    """

    def __init__(
        self,
        base_url: str,
        http: Http,
        tokens: TokenSource,
        *,
        peer: Peer | None = None,
        on_answer: Callable[[Response], None] | None = None,
    ) -> None:
        self.base_url, self.http = base_url.rstrip("/"), http
        self.peer = peer or Peer()
        self._tokens, self._on_answer = tokens, on_answer

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request with a token, and check the response.

        Args:
            method: HTTP method.
            path: starts with ``/``.
            body: JSON unless ``headers`` says otherwise.
            headers: additional headers.

        Returns:
            The response, as ``check`` returns it.

        Raises:
            NetworkError: no response; ServerBusy: the server cannot handle the request now.
            ServerRefuses: the server refuses the request or a token.
        """
        return check(self.send(method, path, body, headers), f"{method} {path}")

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request with a token; renew a refused token once.

        Args:
            method: HTTP method.
            path: starts with ``/``.
            body: JSON unless ``headers`` says otherwise.
            headers: additional headers.

        Returns:
            The response, with any status.

        Raises:
            NetworkError: no response; ServerBusy: the server cannot issue a token now.
            ServerRefuses: the server refuses to issue a token.
        """
        shown = self._tokens.headers()
        answer = self.send_open(method, self.base_url + path, body, {**(headers or {}), **shown})
        if answer.status == _UNAUTHORISED:
            self._tokens.forget_token()
            renewed = self._tokens.headers()
            if renewed != shown:
                answer = self.send_open(method, self.base_url + path, body, {**(headers or {}), **renewed})
        return answer

    def send_open(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Response:
        """Send a request without a token: to sign in, or to a presigned address.

        Args:
            method: HTTP method.
            url: complete address.
            body: JSON unless ``headers`` says otherwise.
            headers: additional headers.
            timeout_s: network timeout in seconds; None: the timeout of ``http``.

        Returns:
            The response, with any status.

        Raises:
            NetworkError: no response.
        """
        ours = url.startswith(f"{self.base_url}/")
        sent = {"Accept": "application/json", **({"Content-Type": "application/json"} if body is not None else {})}
        sent |= {**(headers or {}), **(ANNOUNCEMENT if ours else {})}
        answer = self.http.request(method, url, headers=sent, body=body, timeout_s=timeout_s)
        if ours:
            self.peer.note(answer.status, answer.headers)
            if self._on_answer is not None:
                self._on_answer(answer)
        return answer
