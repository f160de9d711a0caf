"""Talking with the fleet server, beside the agent's loop: the loop leaves a report here and finds the desired state.

A server that is away, answers 500, or refuses this instrument changes nothing on the instrument: waits grow, each kind of
problem gives one event, and one more when it is over.
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
"""Somebody stands beside an instrument that waits to be accepted: its waits do not grow far."""
_NO_NEWS = {"at", "sequence", "counters"}
_NEWS_OF_HEALTH = ("camera", "segmenter", "problems")
_RUNNING_CHANGES = ("reason", "reason_data", "numbers", "changed_at", "bytes_downloaded", "activation_pause_s")


class ServerSync:
    """The desired state and the reports of one instrument.

    Args:
        home: the desired state and the reports' sequence are kept there.
        client: the server; None in a fleet of one.
        clock: for the schedule.
        retry_s: first wait after a failure.
        incident: takes an event for each problem.
        jitter: random numbers from 0 to 1.
        write: the disk; tests bring one that fails.
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
        self._reported_at = self._asked_at = -1e9
        self._not_before = -1e9
        self._failures = 0
        self.problem = ""
        """What is wrong with the server now, as a Key; empty: nothing."""
        self.problem_reason: Reason | None = None
        self.back_at: datetime | None = None
        """When the server answered again after a trouble."""
        self._clock_reported = False
        self._stop = threading.Event()

    @property
    def desired(self) -> DesiredState | None:
        """The newest desired state that was seen, over restarts too."""
        with self._lock:
            return self._desired

    @property
    def arrived_at(self) -> datetime | None:
        """When that desired state was seen first, by this instrument's clock."""
        with self._lock:
            return self._arrived_at

    def has_reported(self, deployment_id: int | None, outcome: str, recovery_s: float | None) -> bool:
        """Whether the server knows how an update ended; without a server there is nothing to report.

        Args:
            deployment_id: of the update.
            outcome: how it ended.
            recovery_s: from a bad activation to the first frame of the slot before; None: not known, or not needed.
        """
        with self._lock:
            return self._client is None or self._reported_end == (deployment_id, outcome, recovery_s)

    @property
    def clock_offset_s(self) -> float:
        """The server's clock minus the clock here."""
        return self._client.clock_offset_s if self._client is not None else 0.0

    def leave(self, report: ReportedState) -> None:
        """Leave the newest report; it is sent when it has news, or when it is time."""
        with self._lock:
            self._waiting = report

    def step(self) -> None:
        """Talk with the server if it is time; takes as long as the network takes. Never raises for the network's sake."""
        now = self._clock.monotonic_s()
        if self._client is None or now < self._not_before:
            return
        try:
            refusal = self._report(now)
            self._ask(now)
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
            self._went_well()

    def run(self, every_s: float) -> None:
        """Step until ``stop`` is called; for a thread of its own."""
        while not self._stop.wait(every_s):
            try:
                self.step()
            except Exception:  # a thread that ends in silence would leave the instrument without a server for good
                _LOG.exception("talking with the server failed; it goes on")
                self._not_before = self._clock.monotonic_s() + self._retry_s

    def stop(self) -> None:
        """End ``run``."""
        self._stop.set()

    def _report(self, now: float) -> ServerRefuses | None:
        """Tell the newest report. One that the server does not understand must not keep the desired state away."""
        with self._lock:
            report = self._waiting
        if report is None or self._client is None:
            return None
        news = _news(report)
        poll_s = self._desired.poll_s if self._desired else self._retry_s
        if news == self._reported and now - self._reported_at < poll_s:
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
            self._reported, self._reported_at = news, now
            end = report.update
            self._reported_end = (end.deployment_id, end.outcome, end.recovery_s) if end else None
        return None

    def _ask(self, now: float) -> None:
        poll_s = self._desired.poll_s if self._desired else self._retry_s
        if self._client is None or now - self._asked_at < poll_s * (0.9 + 0.1 * self._jitter()):
            return
        found, etag = self._client.desired(self._etag)
        self._asked_at, self._etag = now, etag
        if found is None or (self._desired is not None and found.generation < self._desired.generation):
            return
        if found.device_id != self._client.device_id:
            raise WireError(
                f"the server sent the desired state of {found.device_id}, this is {self._client.device_id}",
                hint="is there a proxy that keeps answers? it must not",
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

    def _went_well(self) -> None:
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


def _news(report: ReportedState) -> dict[str, Any]:
    """The part of a report whose change is worth a report at once; the rest waits for its time."""
    news = report.model_dump(mode="json", exclude=_NO_NEWS)
    news["health"] = {k: news["health"][k] for k in _NEWS_OF_HEALTH}
    if report.update is not None and report.update.outcome == "running":
        news["update"] = {k: v for k, v in news["update"].items() if k not in _RUNNING_CHANGES}
    return news
