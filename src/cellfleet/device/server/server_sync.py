"""Synchronises with the fleet server in its own thread: sends the agent's reports, receives the desired state.

A server that is unreachable, answers 500, or refuses this instrument does not affect the instrument: retries back off, and
each problem is reported by one event at its start and one at its end.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from cellfleet.api_client import ServerRefuses
from cellfleet.device.server.client import ServerClient
from cellfleet.device.system.error_reasons import error_reason
from cellfleet.device.system.home import Home
from cellfleet.device.system.retry import backoff_s
from cellfleet.device.system.versioned_file import VersionedFile, WriteFn
from cellfleet.errors import CellfleetError, NetworkError, StorageError, WireError
from cellfleet.ports import Clock, write_atomic
from cellfleet.wire.base import parse_data
from cellfleet.wire.reason import Reason, because, english
from cellfleet.wire.states import DesiredState, ReportedState
from cellfleet.wire.telemetry_events import Incident

_LOG = logging.getLogger(__name__)
CLOCK_OFF_S = 60.0
PENDING = "server-refuses-pending"
_PENDING_GROWTH = 3
"""While an instrument waits for acceptance, retries back off less: the operator who accepts it is waiting, too."""
_ALWAYS_CHANGING = {"at", "sequence", "counters"}
_URGENT_HEALTH = ("camera", "segmenter", "problems")
_RUNNING_CHANGES = ("reason", "reason_data", "numbers", "changed_at", "bytes_downloaded", "activation_pause_s")


class ServerSync:
    """The desired state and the reports of one instrument.

    Args:
        home: stores the desired state and the sequence number of reports.
        client: the server; None in a fleet of one.
        clock: for intervals.
        retry_s: first wait after a failure.
        incident: called with an event for each problem.
        jitter: random numbers from 0 to 1.
        write: writes a file durably; tests pass one that fails.
    """

    def __init__(
        self,
        home: Home,
        client: ServerClient | None,
        clock: Clock,
        *,
        retry_s: float,
        incident: Callable[[Incident], None],
        jitter: Callable[[], float] = random.random,
        write: WriteFn = write_atomic,
    ) -> None:
        self._client, self._clock, self._retry_s = client, clock, retry_s
        self._incident, self._jitter = incident, jitter
        self._kept = VersionedFile(home.state, "desired", write)
        self._numbers = VersionedFile(home.state, "sequence", write)
        self._lock = threading.Lock()
        self._desired, self._arrived_at = self._read_desired()
        self._sequence = int(self._numbers.read().content or 0)
        self._etag = ""
        self._waiting: ReportedState | None = None
        self._reported: dict[str, Any] | None = None
        self._reported_end: tuple[int | None, str, float | None] | None = None
        self._reported_at = self._polled_at = -1e9
        self._not_before = -1e9
        self._failures = 0
        self.problem = ""
        """Current problem with the server, as a Key; empty: none."""
        self.problem_reason: Reason | None = None
        self.back_at: datetime | None = None
        """When the server answered again after a problem."""
        self._clock_reported = False
        self._stop = threading.Event()

    @property
    def desired(self) -> DesiredState | None:
        """The newest desired state, also from before a restart."""
        with self._lock:
            return self._desired

    @property
    def arrived_at(self) -> datetime | None:
        """When the desired state arrived, by the local clock."""
        with self._lock:
            return self._arrived_at

    def has_reported(self, deployment_id: int | None, outcome: str, recovery_s: float | None) -> bool:
        """Whether the outcome of an update was reported to the server; True without a server.

        Args:
            deployment_id: of the update.
            outcome: of the update.
            recovery_s: from a bad activation to the first frame of the restored slot; None: unknown, or not needed.
        """
        with self._lock:
            return self._client is None or self._reported_end == (deployment_id, outcome, recovery_s)

    @property
    def clock_offset_s(self) -> float:
        """The server's clock minus the local clock."""
        return self._client.clock_offset_s if self._client is not None else 0.0

    def submit(self, report: ReportedState) -> None:
        """Submit the newest report; it is sent when it has an urgent change, else at the next poll interval."""
        with self._lock:
            self._waiting = report

    def step(self) -> None:
        """Report and get the desired state when they are due. Blocks during requests; network errors are not raised."""
        now = self._clock.monotonic_s()
        if self._client is None or now < self._not_before:
            return
        try:
            refusal = self._report(now)
            self._get_desired(now)
            if refusal is not None:
                raise refusal
        except NetworkError as e:
            self._failed("server-away", because("server.away", detail=e.message))
        except ServerRefuses as e:
            self._failed(f"server-refuses-{e.code or e.status}", because("server.refuses", detail=e.message))
        except StorageError as e:
            self._failed("disk", error_reason(e))
        except CellfleetError as e:
            self._failed("server-other-version", error_reason(e))
        else:
            self._succeeded()

    def run(self, every_s: float) -> None:
        """Step until ``stop`` is called; runs in its own thread."""
        while not self._stop.wait(every_s):
            try:
                self.step()
            except Exception:  # keep the thread alive: without it the instrument loses the server
                _LOG.exception("a step of the synchronisation failed; the next one is tried")
                self._not_before = self._clock.monotonic_s() + self._retry_s

    def stop(self) -> None:
        """End ``run``."""
        self._stop.set()

    def _report(self, now: float) -> ServerRefuses | None:
        """Send the newest report. Returns a refusal of the report itself, which must not block the desired state."""
        with self._lock:
            report = self._waiting
        if report is None or self._client is None:
            return None
        urgent = _urgent_part(report)
        poll_s = self._desired.poll_s if self._desired else self._retry_s
        if urgent == self._reported and now - self._reported_at < poll_s:
            return None
        self._sequence += 1
        self._numbers.write(self._sequence)
        try:
            self._client.report(report.model_copy(update={"sequence": self._sequence}))
        except ServerRefuses as e:
            if e.status in (401, 403):
                raise
            return e
        with self._lock:
            self._reported, self._reported_at = urgent, now
            end = report.update
            self._reported_end = (end.deployment_id, end.outcome, end.recovery_s) if end else None
        return None

    def _get_desired(self, now: float) -> None:
        poll_s = self._desired.poll_s if self._desired else self._retry_s
        if self._client is None or now - self._polled_at < poll_s * (0.9 + 0.1 * self._jitter()):
            return
        found, etag = self._client.desired(self._etag)
        self._polled_at, self._etag = now, etag
        if found is None or (self._desired is not None and found.generation < self._desired.generation):
            return
        if found.device_id != self._client.device_id:
            raise WireError(
                f"the server sent the desired state of {found.device_id}, this is {self._client.device_id}",
                hint="if there is a proxy, it must not cache answers",
            )
        if found != self._desired:
            at = self._clock.now()
            self._kept.write({"desired": found.model_dump(mode="json"), "arrived_at": at.isoformat()})
            with self._lock:
                self._desired, self._arrived_at = found, at

    def _failed(self, kind: str, reason: Reason) -> None:
        self._failures += 1
        growth = min(self._failures, _PENDING_GROWTH) if kind == PENDING else self._failures
        self._not_before = self._clock.monotonic_s() + backoff_s(growth, self._retry_s, self._jitter())
        self.problem_reason = reason
        if kind != self.problem:
            self.problem = kind
            self._put_incident(kind, because("server.later", reason))

    def _succeeded(self) -> None:
        if self.problem:
            self.back_at = self._clock.now()
            self._put_incident("server-back", because("server.back", tries=self._failures))
        self._failures, self.problem, self.problem_reason = 0, "", None
        off = abs(self.clock_offset_s) > CLOCK_OFF_S
        if off and not self._clock_reported:
            self._put_incident("clock-off", because("clock.off", seconds=-self.clock_offset_s))
        self._clock_reported = off

    def _put_incident(self, kind: str, reason: Reason) -> None:
        with contextlib.suppress(StorageError):
            self._incident(Incident(at=self._clock.now(), kind=kind, text=english(reason), reason_data=reason))

    def _read_desired(self) -> tuple[DesiredState | None, datetime | None]:
        content = self._kept.read().content
        try:
            return parse_data(DesiredState, content["desired"]), datetime.fromisoformat(content["arrived_at"])
        except (CellfleetError, KeyError, TypeError, ValueError):
            return None, None


def _urgent_part(report: ReportedState) -> dict[str, Any]:
    """The part of a report whose change is reported at once; the rest waits for the poll interval."""
    urgent = report.model_dump(mode="json", exclude=_ALWAYS_CHANGING)
    urgent["health"] = {k: urgent["health"][k] for k in _URGENT_HEALTH}
    if report.update is not None and report.update.outcome == "running":
        urgent["update"] = {k: v for k, v in urgent["update"].items() if k not in _RUNNING_CHANGES}
    return urgent
