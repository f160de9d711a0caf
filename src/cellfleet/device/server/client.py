"""The fleet server's API as an instrument uses it. Errors tell "later" (NetworkError) from "no" (ServerRefuses)."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from cellfleet.device.system.identity import Identity
from cellfleet.errors import DeviceError, NetworkError, WireError
from cellfleet.ports import Clock
from cellfleet.ports.http import Http, Response
from cellfleet.wire.base import parse
from cellfleet.wire.enrol import ClaimReply, ClaimRequest, TokenReply, TrustAnchors
from cellfleet.wire.features import ANNOUNCEMENT, NONE, Peer
from cellfleet.wire.problem import Problem
from cellfleet.wire.states import DesiredState, ReportedState

_JSON = {**ANNOUNCEMENT, "Content-Type": "application/json", "Accept": "application/json"}
_EARLY_S = 30.0
_CLOCK_MATTERS_S = 60.0


class ServerRefuses(DeviceError):
    """The server says no, and will say it again.

    Attributes:
        status: HTTP status.
        code: of the problem, such as ``pending`` or ``revoked``; empty when the answer was none of ours.
    """

    def __init__(self, message: str, *, status: int, code: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.code = status, code


class ServerClient:
    """The server, as one device. Safe to be used by several threads.

    Args:
        base_url: address of the server.
        identity: who asks.
        http: the network.
        clock: for the tokens' life.
    """

    def __init__(self, base_url: str, identity: Identity, http: Http, clock: Clock) -> None:
        self._base, self._identity, self._http, self._clock = base_url.rstrip("/"), identity, http, clock
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0
        self._peer = Peer()
        self.clock_offset_s = 0.0
        """The server's clock less ours, from its latest answer."""

    @property
    def base_url(self) -> str:
        return self._base

    @property
    def device_id(self) -> str:
        return self._identity.device_id

    @property
    def peer(self) -> Peer:
        """What the server announced."""
        return self._peer

    @property
    def http(self) -> Http:
        return self._http

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
        """The desired state and its ETag; None when it is the one of ``etag`` still.

        Raises:
            NetworkError: later, perhaps.
            ServerRefuses: no.
            WireError: a server of another version.
        """
        extra = {"If-None-Match": etag} if etag else {}
        answer = self._authorised("GET", "/api/v1/device/desired", extra)
        if answer.status == 304:
            return None, etag
        return parse(DesiredState, answer.body), answer.headers.get("etag", "")

    def report(self, state: ReportedState) -> None:
        """Report how this device is, with the fields that the server knows; errors as of ``desired``."""
        self.headers()  # asks for a token when needed: its answer announces what the server knows
        self._authorised("PUT", "/api/v1/device/reported", _JSON, state.to_json(self._peer.features))

    def _authorised(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Response:
        answer = self._send(method, path, headers | self.headers(), body)
        if answer.status == 401:
            self.forget_token()
            answer = self._send(method, path, headers | self.headers(), body)
        return check(answer, f"{method} {path}")

    def _new_token(self) -> None:
        used = self.clock_offset_s
        answer = self._ask_token(used)
        if answer.status in (400, 401, 403, 422) and abs(self.clock_offset_s - used) > _CLOCK_MATTERS_S:
            answer = self._ask_token(self.clock_offset_s)  # our clock is off; the server told its own
        reply = parse(TokenReply, check(answer, "POST /api/v1/devices/token").body)
        server_now = self._clock.now() + timedelta(seconds=self.clock_offset_s)
        life = (reply.expires_at - server_now).total_seconds()
        self._token = reply.token
        self._renew_at = self._clock.monotonic_s() + max(0.5 * life, life - _EARLY_S)

    def _ask_token(self, offset_s: float) -> Response:
        request = self._identity.token_request(self._clock.now() + timedelta(seconds=offset_s))
        return self._send("POST", "/api/v1/devices/token", _JSON, request.to_json(NONE))

    def _send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Response:
        answer = self._http.request(method, self._base + path, headers=headers, body=body)
        self._peer.note(answer.status, answer.headers)
        self._note_time(answer)
        return answer

    def _note_time(self, answer: Response) -> None:
        offset = date_offset_s(answer, self._clock.now())
        if offset is not None:
            self.clock_offset_s = offset


def date_offset_s(answer: Response, now: datetime) -> float | None:
    """The server's clock less ours, from its Date header (whole seconds); None without one."""
    with contextlib.suppress(ValueError, TypeError):
        date = parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
        if date is not None:
            aware = date if date.tzinfo else date.replace(tzinfo=UTC)
            return (aware - now).total_seconds()
    return None


def claim(http: Http, base_url: str, request: ClaimRequest) -> ClaimReply:
    """Claim this device's place.

    Raises:
        NetworkError, ServerRefuses, WireError: as of ``ServerClient.desired``.
    """
    url = f"{base_url.rstrip('/')}/api/v1/devices/claim"
    answer = http.request("POST", url, headers=_JSON, body=request.to_json(NONE))
    return parse(ClaimReply, check(answer, "POST /api/v1/devices/claim").body)


def anchors(http: Http, base_url: str) -> TrustAnchors:
    """The digests of the roots, as the server tells them; the caller checks them against its claim token."""
    answer = http.request("GET", f"{base_url.rstrip('/')}/api/v1/trust/anchors", headers=_JSON)
    return parse(TrustAnchors, check(answer, "GET /api/v1/trust/anchors").body)


def check(answer: Response, what: str) -> Response:
    """The answer, when it is a good one.

    Raises:
        NetworkError: the server has trouble of its own, or too much to do; later, perhaps.
        ServerRefuses: no.
    """
    if answer.status < 300 or answer.status == 304:
        return answer
    problem = _problem(answer)
    text = problem.detail or problem.title if problem else f"status {answer.status}"
    if answer.status >= 500 or answer.status in (408, 425, 429):
        raise NetworkError(f"{what}: the server answers {answer.status}: {text}", hint="it is tried again")
    raise ServerRefuses(
        f"{what}: {text}",
        status=answer.status,
        code=problem.code if problem else "",
        hint=problem.hint if problem else "is the address that of a cellfleet server of this version?",
    )


def _problem(answer: Response) -> Problem | None:
    try:
        return Problem.model_validate({k: v for k, v in json.loads(answer.body).items() if k in Problem.model_fields})
    except (ValueError, AttributeError, WireError):
        return None
