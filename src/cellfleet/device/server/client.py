"""Client of the fleet server's API for instruments: tokens, the desired state, reports, claims."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from cellfleet.api_client import ApiClient, check
from cellfleet.api_client.client import FixedHeaders
from cellfleet.device.system.identity import Identity
from cellfleet.ports import Clock
from cellfleet.ports.http import Http, Response
from cellfleet.wire.base import parse
from cellfleet.wire.enrol import ClaimReply, ClaimRequest, TokenReply, TrustAnchors
from cellfleet.wire.features import ANNOUNCEMENT, NONE, Peer
from cellfleet.wire.states import DesiredState, ReportedState

_TOKEN_PATH = "/api/v1/devices/token"
_EARLY_S = 30.0
_CLOCK_MATTERS_S = 60.0


class ServerClient:
    """Client of one device; the TokenSource of its ApiClient. Thread-safe.

    Args:
        base_url: address of the server.
        identity: signs the requests for tokens.
        http: the network.
        clock: for the lifetime of tokens.
    """

    def __init__(self, base_url: str, identity: Identity, http: Http, clock: Clock) -> None:
        self._identity, self._clock = identity, clock
        self._api = ApiClient(base_url, http, self, on_answer=self._note_time)
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0
        self.clock_offset_s = 0.0
        """The server's clock minus the local clock, from the latest answer."""

    @property
    def base_url(self) -> str:
        return self._api.base_url

    @property
    def device_id(self) -> str:
        return self._identity.device_id

    @property
    def peer(self) -> Peer:
        """Features that the server announced."""
        return self._api.peer

    @property
    def http(self) -> Http:
        return self._api.http

    def headers(self) -> dict[str, str]:
        """``Authorization`` with a valid token, and the features of this program; requests a token when needed.

        Raises:
            NetworkError: the server cannot be reached now.
            ServerRefuses: this device is pending, rejected, revoked or unknown.
        """
        with self._lock:
            if not self._token or self._clock.monotonic_s() >= self._renew_at:
                self._new_token()
            return {**ANNOUNCEMENT, "Authorization": f"Bearer {self._token}"}

    def forget_token(self) -> None:
        """Discard the token: the next ``headers()`` requests another one."""
        with self._lock:
            self._token = ""

    def desired(self, etag: str) -> tuple[DesiredState | None, str]:
        """Get the desired state and its ETag; None: it is unchanged since ``etag``.

        Raises:
            NetworkError: the server cannot be reached now.
            ServerRefuses: the server refuses the request.
            WireError: the answer is not valid, as from a server of another version.
        """
        answer = self._api.request("GET", "/api/v1/device/desired", headers={"If-None-Match": etag} if etag else None)
        if answer.status == 304:
            return None, etag
        return parse(DesiredState, answer.body), answer.headers.get("etag", "")

    def report(self, state: ReportedState) -> None:
        """Report the state of this device, with the fields that the server knows; errors as of ``desired``."""
        self.headers()  # requests a token when needed: the answer announces the server's features
        self._api.request("PUT", "/api/v1/device/reported", state.to_json(self.peer.features))

    def _new_token(self) -> None:
        used_s = self.clock_offset_s
        answer = self._request_token(used_s)
        if answer.status in (400, 401, 403, 422) and abs(self.clock_offset_s - used_s) > _CLOCK_MATTERS_S:
            answer = self._request_token(self.clock_offset_s)  # the local clock is off; use the server's
        reply = parse(TokenReply, check(answer, f"POST {_TOKEN_PATH}").body)
        server_now = self._clock.now() + timedelta(seconds=self.clock_offset_s)
        lifetime_s = (reply.expires_at - server_now).total_seconds()
        self._token = reply.token
        self._renew_at = self._clock.monotonic_s() + max(0.5 * lifetime_s, lifetime_s - _EARLY_S)

    def _request_token(self, offset_s: float) -> Response:
        request = self._identity.token_request(self._clock.now() + timedelta(seconds=offset_s))
        return self._api.send_open("POST", self.base_url + _TOKEN_PATH, request.to_json(NONE))

    def _note_time(self, answer: Response) -> None:
        offset = date_offset_s(answer, self._clock.now())
        if offset is not None:
            self.clock_offset_s = offset


def date_offset_s(answer: Response, now: datetime) -> float | None:
    """The server's clock minus the local clock.

    Args:
        answer: with the server's time in its Date header.
        now: time by the local clock.

    Returns:
        Whole seconds; None without a Date header.
    """
    with contextlib.suppress(ValueError, TypeError):
        date = parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
        if date is not None:
            aware = date if date.tzinfo else date.replace(tzinfo=UTC)
            return (aware - now).total_seconds()
    return None


def claim(http: Http, base_url: str, request: ClaimRequest) -> ClaimReply:
    """Claim a place in the fleet for this device.

    Args:
        http: the network.
        base_url: address of the server.
        request: claim token, name and key.

    Returns:
        Id and state of the device.

    Raises:
        NetworkError, ServerRefuses, WireError: as of ``ServerClient.desired``.
    """
    api = ApiClient(base_url, http, FixedHeaders())
    return parse(ClaimReply, api.request("POST", "/api/v1/devices/claim", request.to_json(NONE)).body)


def anchors(http: Http, base_url: str) -> TrustAnchors:
    """Get the digests of the roots; the caller compares them with its claim token.

    Args:
        http: the network.
        base_url: address of the server.

    Returns:
        The trust anchors of the server.

    Raises:
        NetworkError, ServerRefuses, WireError: as of ``ServerClient.desired``.
    """
    api = ApiClient(base_url, http, FixedHeaders())
    return parse(TrustAnchors, api.request("GET", "/api/v1/trust/anchors").body)
