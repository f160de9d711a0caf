"""Requests to a fleet server: address, token, announcement of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cellfleet.api_client.answers import check
from cellfleet.ports.http import Http, Response
from cellfleet.wire.features import ANNOUNCEMENT, Peer

_UNAUTHORISED = 401


class TokenSource(Protocol):
    """Gives the token that a client shows; safe to be used by several threads."""

    def headers(self) -> dict[str, str]:
        """``Authorization`` with a token that is valid now; empty when there is none.

        Raises:
            NetworkError: the server cannot be asked for a token now.
            ServerRefuses: it refuses one.
        """
        ...

    def forget_token(self) -> None:
        """The server refused the token: the next ``headers()`` gives another one, if there can be one."""
        ...


class FixedHeaders:
    """What was given once and cannot be renewed: an API token, the cookie of a session, or nothing."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._headers = dict(headers or {})

    def headers(self) -> dict[str, str]:
        """The same every time."""
        return dict(self._headers)

    def forget_token(self) -> None:
        """There is no other one."""


class ApiClient:
    """A fleet server, as one client. Safe to be used by several threads.

    Args:
        base_url: address of the server.
        http: the network.
        tokens: who asks.
        peer: learns what the server announces; clients of one server may share it.
        on_answer: called with every answer.
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
        """Send a request with a token, and check the answer.

        Args:
            method: HTTP method.
            path: begins with ``/``.
            body: JSON unless ``headers`` says otherwise.
            headers: more headers.

        Returns:
            The answer, as of ``check``.

        Raises:
            NetworkError: no answer; ServerBusy: not now.
            ServerRefuses: no, to the request or to a token.
        """
        return check(self.send(method, path, body, headers), f"{method} {path}")

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request with a token; a token that is refused is renewed once.

        Args:
            method: HTTP method.
            path: begins with ``/``.
            body: JSON unless ``headers`` says otherwise.
            headers: more headers.

        Returns:
            The answer, of any status.

        Raises:
            NetworkError: no answer; ServerBusy: no token now.
            ServerRefuses: the server refuses a token.
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
        """Send a request without a token: to sign in, or to an address that is its own authorisation.

        Args:
            method: HTTP method.
            url: a whole address.
            body: JSON unless ``headers`` says otherwise.
            headers: more headers.
            timeout_s: timeout of the network; None: that of ``http``.

        Returns:
            The answer, of any status.

        Raises:
            NetworkError: no answer.
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
