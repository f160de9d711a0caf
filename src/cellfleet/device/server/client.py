"""The fleet server's API as an instrument uses it: a token of its own key, the desired state, reports, joining."""

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
    """The server, as one device; the TokenSource of its ApiClient. Safe to be used by several threads.

    Args:
        base_url: address of the server.
        identity: who asks.
        http: the network.
        clock: for the tokens' life.
    """

    def __init__(self, base_url: str, identity: Identity, http: Http, clock: Clock) -> None:
        self._identity, self._clock = identity, clock
        self._api = ApiClient(base_url, http, self, on_answer=self._note_time)
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0
        self.clock_offset_s = 0.0
        """The server's clock minus the clock here, from its latest answer."""

    @property
    def base_url(self) -> str:
        return self._api.base_url

    @property
    def device_id(self) -> str:
        return self._identity.device_id

    @property
    def peer(self) -> Peer:
        """What the server announced."""
        return self._api.peer

    @property
    def http(self) -> Http:
        return self._api.http

    def headers(self) -> dict[str, str]:
        """``Authorization`` with a token that is valid now, and our announcement; asks for a token when needed.

        Raises:
            NetworkError: the server cannot be asked now.
            ServerRefuses: pending, rejected, revoked, unknown.
        """
        with self._lock:
            if not self._token or self._clock.monotonic_s() >= self._renew_at:
                self._new_token()
            return {**ANNOUNCEMENT, "Authorization": f"Bearer {self._token}"}

    def forget_token(self) -> None:
        """The next ``headers()`` asks for another token."""
        with self._lock:
            self._token = ""

    def desired(self, etag: str) -> tuple[DesiredState | None, str]:
        """The desired state and its ETag; None when it is still the one of ``etag``.

        Raises:
            NetworkError: later, perhaps.
            ServerRefuses: no.
            WireError: a server of another version.
        """
        answer = self._api.request("GET", "/api/v1/device/desired", headers={"If-None-Match": etag} if etag else None)
        if answer.status == 304:
            return None, etag
        return parse(DesiredState, answer.body), answer.headers.get("etag", "")

    def report(self, state: ReportedState) -> None:
        """Report how this device is, with the fields that the server knows; errors as of ``desired``."""
        self.headers()  # asks for a token when needed: its answer announces what the server knows
        self._api.request("PUT", "/api/v1/device/reported", state.to_json(self.peer.features))

    def _new_token(self) -> None:
        used = self.clock_offset_s
        answer = self._ask_token(used)
        if answer.status in (400, 401, 403, 422) and abs(self.clock_offset_s - used) > _CLOCK_MATTERS_S:
            answer = self._ask_token(self.clock_offset_s)  # the clock here is off; the server's answer has its own
        reply = parse(TokenReply, check(answer, f"POST {_TOKEN_PATH}").body)
        server_now = self._clock.now() + timedelta(seconds=self.clock_offset_s)
        life = (reply.expires_at - server_now).total_seconds()
        self._token = reply.token
        self._renew_at = self._clock.monotonic_s() + max(0.5 * life, life - _EARLY_S)

    def _ask_token(self, offset_s: float) -> Response:
        request = self._identity.token_request(self._clock.now() + timedelta(seconds=offset_s))
        return self._api.send_open("POST", self.base_url + _TOKEN_PATH, request.to_json(NONE))

    def _note_time(self, answer: Response) -> None:
        offset = date_offset_s(answer, self._clock.now())
        if offset is not None:
            self.clock_offset_s = offset


def date_offset_s(answer: Response, now: datetime) -> float | None:
    """The server's clock minus the clock here.

    Args:
        answer: with the server's time in its Date header.
        now: by the clock here.

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
    """Claim this device's place.

    Args:
        http: the network.
        base_url: address of the server.
        request: claim token, name and key.

    Returns:
        The id of the device, and its state.

    Raises:
        NetworkError, ServerRefuses, WireError: as of ``ServerClient.desired``.
    """
    api = ApiClient(base_url, http, FixedHeaders())
    return parse(ClaimReply, api.request("POST", "/api/v1/devices/claim", request.to_json(NONE)).body)


def anchors(http: Http, base_url: str) -> TrustAnchors:
    """Ask for the digests of the roots; the caller compares them with its claim token.

    Args:
        http: the network.
        base_url: address of the server.

    Returns:
        What the server says its roots are.

    Raises:
        NetworkError, ServerRefuses, WireError: as of ``ServerClient.desired``.
    """
    api = ApiClient(base_url, http, FixedHeaders())
    return parse(TrustAnchors, api.request("GET", "/api/v1/trust/anchors").body)
