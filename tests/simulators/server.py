"""The fleet server as an instrument sees it, in memory, through the real ``Http`` port."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from email.utils import format_datetime
from urllib.parse import urlsplit

from cellfleet.canonical import sha256_hex
from cellfleet.errors import NetworkError, WireError
from cellfleet.ports import Clock
from cellfleet.ports.http import Response, Stream
from cellfleet.wire.base import parse
from cellfleet.wire.enrol import ClaimReply, ClaimRequest, TokenReply, TokenRequest, TrustAnchors
from cellfleet.wire.features import HEADER
from cellfleet.wire.states import DesiredState, ReportedState

URL = "http://fleet.example"


class SimServer:
    """Answers as ``docs/fleet.md`` says.

    Attributes:
        away: no connection.
        broken: status with which everything is answered; 0: none.
        refusal: word of the problem with which tokens are refused; empty: none.
        desired: what the device is told.
        reports: what it told, in order.
        files: path -> content: metadata and artifacts.
        claims: token -> name it was used for; empty: not used yet.
        break_after: a download breaks after so many bytes; 0: never.
        token: it gives and takes.
        answers: ``METHOD /path`` -> what it answers there instead.
        lost: ``METHOD /path`` whose answers do not arrive, although it does what was asked.
        clock: its time, before ``clock_ahead_s``.
        features: what it announces, and what reports may hold; None: it is a server that does not know of features.
        report_kind: the message that it takes as a report.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.token = "a-token"
        self.answers: dict[str, Response] = {}
        self.lost: set[str] = set()
        self.away = False
        self.broken = 0
        self.refusal = ""
        self.desired: DesiredState | None = None
        self.reports: list[ReportedState] = []
        self.files: dict[str, bytes] = {}
        self.claims: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.anchors: TrustAnchors | None = None
        self.break_after = 0
        self.asked: list[str] = []
        self.sent_headers: list[dict[str, str]] = []
        self.clock_ahead_s = 0.0
        self.features: str | None = ""
        self.report_kind: type[ReportedState] = ReportedState

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """As ``Http.request``; it never takes long."""
        del timeout_s
        path = self._path(method, url)
        self.sent_headers.append(dict(headers or {}))
        if self.broken:
            return Response(self.broken, {}, b"<html>trouble</html>")
        here = f"{method} {path}"
        answer = self.answers.get(here) or self._answer(method, path, dict(headers or {}), body or b"")
        if here in self.lost:
            raise NetworkError("the line broke")
        date = format_datetime(self.clock.now() + timedelta(seconds=self.clock_ahead_s), usegmt=True)
        announced = {} if self.features is None else {HEADER.lower(): self.features}
        return Response(answer.status, {**answer.headers, **announced, "date": date}, answer.body)

    @contextlib.contextmanager
    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Iterator[Stream]:
        """As ``Http.stream``, with ranges."""
        del timeout_s
        path = self._path("GET", url)
        if self.broken or path not in self.files:
            yield Stream(self.broken or 404, {}, iter([b""]))
            return
        data, names = self.files[path], {k.lower(): v for k, v in (headers or {}).items()}
        start = int(names["range"].removeprefix("bytes=").split("-")[0]) if "range" in names else 0
        facts = {"etag": f'"{sha256_hex(data)}"', "content-length": str(len(data) - start)}
        if start:
            facts["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        yield Stream(206 if start else 200, facts, self._chunks(data[start:]))

    def _chunks(self, data: bytes) -> Iterator[bytes]:
        sent = 0
        for i in range(0, len(data), 1000):
            if self.break_after and sent >= self.break_after:
                raise NetworkError("the line broke")
            sent += 1000
            yield data[i : i + 1000]

    def _path(self, method: str, url: str) -> str:
        path = urlsplit(url).path
        self.asked.append(f"{method} {path}")
        if self.away:
            raise NetworkError(f"{url}: no connection")
        return path

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        match (method, path):
            case ("POST", "/api/v1/devices/claim"):
                return self._claim(parse(ClaimRequest, body))
            case ("GET", "/api/v1/trust/anchors") if self.anchors is not None:
                return Response(200, {}, self.anchors.to_json())
            case ("POST", "/api/v1/devices/token"):
                return self._token(parse(TokenRequest, body))
            case ("GET", _) if path in self.files:
                return Response(200, {}, self.files[path])
        if headers.get("Authorization") != f"Bearer {self.token}":
            return problem(401, "token")
        if (method, path) == ("PUT", "/api/v1/device/reported"):
            try:
                self.reports.append(parse(self.report_kind, body))
            except WireError as e:
                return problem(422, "not-understood", e.message)
            return Response(204)
        if (method, path) == ("GET", "/api/v1/device/desired") and self.desired is not None:
            data = self.desired.to_json()
            etag = f'"{sha256_hex(data)}"'
            same = headers.get("If-None-Match") == etag
            return Response(304) if same else Response(200, {"etag": etag}, data)
        return problem(404, "not-found")

    def _claim(self, request: ClaimRequest) -> Response:
        used = self.claims.get(request.claim_token)
        if used is None:
            return problem(401, "claim-unknown", "this claim token is not known")
        if used:
            return problem(409, "claim-used", f"this claim token was used for {used}")
        if request.public_key in self.keys:
            return problem(409, "key-known", f"this key is that of {self.keys[request.public_key]}")
        self.claims[request.claim_token] = request.name
        self.keys[request.public_key] = request.name
        reply = ClaimReply(device_id="dev-" + sha256_hex(request.public_key.encode())[:12], state="pending")
        return Response(201, {}, reply.to_json())

    def _token(self, request: TokenRequest) -> Response:
        now = self.clock.now() + timedelta(seconds=self.clock_ahead_s)
        if self.refusal:
            return problem(403, self.refusal, f"this device is {self.refusal}")
        if abs((request.issued_at - now).total_seconds()) > 300:
            return problem(401, "clock", "the device's clock is off")
        return Response(200, {}, TokenReply(token=self.token, expires_at=now + timedelta(hours=1)).to_json())


def problem(status: int, word: str, detail: str = "") -> Response:
    """A problem of RFC 9457."""
    facts = {"type": f"urn:cellfleet:problem:{word}", "title": word, "status": status, "detail": detail or word}
    return Response(status, {"content-type": "application/problem+json"}, json.dumps(facts).encode())
