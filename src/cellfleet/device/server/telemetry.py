"""Telemetry: a thread that sends the spool to the server, in order, at a limited rate, and retries without end.

Events first, then gauges, then pictures. Failed requests are retried with a backoff; a batch that is too large is split; an
event that the server refuses permanently is set aside and reported.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from cellfleet._version import __version__
from cellfleet.api_client import ApiClient, ServerBusy, ServerRefuses, check
from cellfleet.config import Settings
from cellfleet.device.interfaces import Server
from cellfleet.device.server.spool import Spool, SpoolBatch
from cellfleet.device.server.uploads import PictureRefused, upload_picture
from cellfleet.device.system.home import Home
from cellfleet.device.system.retry import backoff_s
from cellfleet.errors import CellfleetError, NetworkError
from cellfleet.ports import Clock
from cellfleet.ports.http import Http, Response, SystemHttp
from cellfleet.wire.features import NONE, used_features
from cellfleet.wire.reason import because, english
from cellfleet.wire.telemetry_events import Incident
from cellfleet.wire.telemetry_otlp import CONTENT_TYPE, Gauge, encode_events, encode_gauges

_LOG = logging.getLogger(__name__)
_CONFLICT, _TOO_LARGE = 409, 413
_POISON = (400, 415, 422)
"""The server refuses this content permanently. After all other errors a retry may succeed."""

PICTURES_WAIT_S = 30.0
"""Wait after a picture that could not be uploaded; events are not delayed."""


@dataclass(frozen=True)
class Pace:
    """Rates and limits of sending.

    Attributes:
        idle_s: between two steps when the spool is empty.
        gap_s: minimum time between two requests, so that a long backlog does not crowd out other instruments.
        gauges_s: between two measurements.
        max_items, max_bytes: limits of one batch.
    """

    idle_s: float = 1.0
    gap_s: float = 0.1
    gauges_s: float = 30.0
    max_items: int = 200
    max_bytes: int = 512 << 10


class Sender:
    """Sends a spool to a server. ``step`` makes one request; ``start`` runs it in a thread until ``close``.

    Args:
        home: for the disk's free space and the instrument's status.
        settings: first wait after a failure, timeout of the network.
        spool: what is sent.
        server: address and tokens.
        clock: time.
        http: the network.
        pace: rates and limits.
        jitter: random numbers from 0 to 1.

    Attributes:
        problem: current problem with the server, as text; empty: none.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        spool: Spool,
        server: Server,
        clock: Clock,
        *,
        http: Http | None = None,
        pace: Pace | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._home, self._spool, self._server, self._clock = home, spool, server, clock
        self._retry_s, self._timeout_s = settings.agent.retry_s, settings.device.network_timeout_s
        self._http: Http = http or SystemHttp(timeout_s=self._timeout_s)
        self._pace, self._jitter = pace or Pace(), jitter
        self._failures, self._renewed = 0, -1
        self._measured_at = self._pictures_after = -1e9
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self.problem = ""

    def start(self) -> None:
        """Start sending in a separate thread, until ``close``."""
        self._thread.start()

    def close(self) -> None:
        """Stop; unsent items stay in the spool. Waits a short time for the current request."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def step(self) -> float:
        """Make one request, if there is something to send.

        Returns:
            Seconds to wait before the next step.
        """
        try:
            self._measure()
            sent = self._send_batch("event") or self._send_batch("gauge") or self._send_picture()
        except ServerBusy as e:
            return self._failed(e.message, e.retry_after_s)
        except CellfleetError as e:
            return self._failed(e.message, 0.0)
        self._failures, self.problem = 0, ""
        return self._pace.gap_s if sent else self._pace.idle_s

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            try:
                wait_s = self.step()
            except Exception:  # keep the thread alive: without it telemetry stops
                _LOG.exception("a step of telemetry failed; the next one is tried")
                wait_s = self._failed("an internal error of telemetry", 0.0)

    def _failed(self, text: str, retry_after_s: float) -> float:
        self._failures += 1
        wait_s = max(retry_after_s, backoff_s(self._failures, self._retry_s, self._jitter()))
        if text != self.problem:
            _LOG.warning("telemetry waits %.0f s: %s", wait_s, text)
        self.problem = text
        return wait_s

    def _send_batch(self, kind: str) -> bool:
        batch = self._spool.next_batch(
            "event" if kind == "event" else "gauge", self._pace.max_items, self._pace.max_bytes
        )
        if batch is None:
            return False
        resource = {
            "service.name": "cellfleet-device",
            "service.version": __version__,
            "service.instance.id": self._server.device_id,
        }
        features = self._features(batch)
        if batch.kind == "event":
            path, body = "/v1/logs", encode_events(resource, batch.events, batch.at, features)
        else:
            path, body = "/v1/metrics", encode_gauges(resource, batch.gauges)
        key = "+".join([batch.key, *sorted(features)])  # a batch in another form needs another key
        headers = {"Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE, "Idempotency-Key": key}
        answer = self._api().send("POST", path, body, headers)
        try:
            self._take_answer(batch, features, check(answer, f"POST {path}"))
        except ServerRefuses as e:
            if e.status == _CONFLICT and self._renewed != batch.first_id:
                self._renewed = batch.first_id
                self._spool.renew(batch)
            elif e.status in (_TOO_LARGE, _CONFLICT, *_POISON):
                self._refused(batch, e)
            else:
                raise
        return True

    def _features(self, batch: SpoolBatch) -> frozenset[str]:
        """The features of the server that change the form of this batch."""
        self._server.headers()  # requests a token when needed: the answer announces the server's features
        known = self._server.peer.features
        return NONE.union(*(used_features(type(event), known) for event in batch.events))

    def _take_answer(self, batch: SpoolBatch, features: frozenset[str], answer: Response) -> None:
        """Confirm the batch, unless another, older replica of the server answered and rejected unknown fields."""
        rejected = _rejected(answer)
        if rejected and not features <= self._server.peer.features:
            raise NetworkError(f"an older server does not understand some events: {rejected}")
        self._spool.confirm(batch)
        if rejected:
            _LOG.warning("the server did not understand some events: %s", rejected)

    def _refused(self, batch: SpoolBatch, error: ServerRefuses) -> None:
        """Split a batch that is too large or has an invalid item, until the item is found; set that item aside."""
        if self._spool.split(batch):
            return
        reason = f"the server answers {error.status}: {error.message}"
        self._spool.set_aside(batch, reason)
        _LOG.error("one %s was set aside: %s", batch.kind, reason)
        if batch.kind == "event" and batch.events[0].event != "incident":
            event, at = batch.events[0].event, self._clock.now()
            why = because("telemetry.refused", event=event, status=error.status, detail=error.message)
            self._spool.put(Incident(at=at, kind="telemetry-refused", text=english(why), reason_data=why))

    def _send_picture(self) -> bool:
        if self._clock.monotonic_s() < self._pictures_after:
            return False
        picture = self._spool.next_picture()
        if picture is None:
            return False
        try:
            upload_picture(self._api(), picture)
        except (ServerBusy, ServerRefuses) as e:
            retry_after_s = e.retry_after_s if isinstance(e, ServerBusy) else 0.0
            self._pictures_after = self._clock.monotonic_s() + max(retry_after_s, PICTURES_WAIT_S)
            raise
        except PictureRefused as e:
            _LOG.warning("the %s of %s is not uploaded: %s", picture.kind, picture.frame, e)
        self._spool.picture_done(picture)
        return True

    def _api(self) -> ApiClient:
        return ApiClient(self._server.base_url, self._http, self._server, peer=self._server.peer)

    def _measure(self) -> None:
        now = self._clock.monotonic_s()
        if now - self._measured_at < self._pace.gauges_s:
            return
        self._measured_at = now
        self._spool.put_gauges(gauges(self._home, self._spool, self._clock))


def gauges(home: Home, spool: Spool, clock: Clock) -> list[Gauge]:
    """Measure queue, memory, time of a frame, disk and spool.

    Args:
        home: for the disk and the instrument's status.
        spool: its size, and the time of the latest frame.
        clock: time of the measurement.

    Returns:
        One gauge per known value.
    """
    at = clock.now()
    items, size = spool.backlog()
    out = [
        Gauge("cellfleet.spool.items", float(items), "1", at),
        Gauge("cellfleet.spool.size", size / 1e6, "MBy", at),
    ]
    with contextlib.suppress(OSError):
        out.append(Gauge("cellfleet.disk.free", shutil.disk_usage(home.root).free / 1e6, "MBy", at))
    if spool.last_ms is not None:
        out.append(Gauge("cellfleet.frame.time", spool.last_ms, "ms", at))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        health = json.loads(home.status_file.read_bytes())["health"]
        out.append(Gauge("cellfleet.queue.frames", float(health["queue_frames"]), "1", at))
        out.append(Gauge("cellfleet.segmenter.memory", float(health["segmenter_memory_mb"]), "MBy", at))
        out.append(Gauge("cellfleet.segmenter.restarts", float(health["segmenter_restarts"]), "1", at))
    with contextlib.suppress(ImportError):
        import psutil

        out.append(Gauge("cellfleet.agent.memory", psutil.Process().memory_info().rss / 1e6, "MBy", at))
    return out


def _rejected(answer: Response) -> str:
    """The server's message on rejected log records; empty: it rejected none."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    reply = ExportLogsServiceResponse()
    with contextlib.suppress(DecodeError):
        reply.ParseFromString(answer.body)
        if reply.partial_success.rejected_log_records:
            return reply.partial_success.error_message or "no reason given"
    return ""
