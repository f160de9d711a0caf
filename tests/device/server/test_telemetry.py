"""The sender against a real server on loopback that answers 500, 413, 401, nothing at all, or twice."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from cellfleet.canonical import sha256_hex
from cellfleet.config import load_project
from cellfleet.device.server.spool import Spool
from cellfleet.device.server.telemetry import Pace, Sender
from cellfleet.device.system.home import Home
from cellfleet.errors import NetworkError
from cellfleet.ports import SystemClock
from cellfleet.ports.http import SystemHttp
from cellfleet.wire.features import HEADER, Peer
from cellfleet.wire.telemetry_events import FrameTaken, Incident
from cellfleet.wire.telemetry_otlp import decode_events, decode_gauges
from support_scheduler import taken_frame as frame
from support_waiting import wait_until


@dataclass
class Fleet:
    """What the server does next, and what it has got.

    Attributes:
        plan: statuses of the next answers; "cut": the line breaks after the request was taken; empty: all is well.
        got: idempotency key -> frames, in the order in which they came first.
        poison: index of a frame that it can never take.
        features: what it announces; None: it is a server that does not know of features.
        knows_details: it understands the newer field of ``NewerIncident``.
    """

    plan: list[int | str] = field(default_factory=list)
    got: dict[str, list[int]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    gauges: list[str] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[str, object]] = field(default_factory=dict)
    stored: list[tuple[str, str, str]] = field(default_factory=list)
    most: int = 10_000
    poison: int = -1
    token: str = "good"
    retry_after: str = ""
    features: str | None = None
    knows_details: bool = False
    details: int = 0
    rejected: int = 0

    @property
    def frames(self) -> list[int]:
        return [i for part in self.got.values() for i in part]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fleet: Fleet

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {self.fleet.token}":
            return self._answer(401)
        if self.path == "/v1/logs":
            return self._logs(body)
        if self.path == "/v1/metrics":
            self.fleet.gauges += [g.name for g in decode_gauges(body).gauges]
            return self._answer(200)
        return self._upload(body)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number, part = re.fullmatch(r"/parts/(\w+)/(\d)", self.path).groups()  # type: ignore[union-attr]
        self.fleet.blobs[number] = self.fleet.blobs.get(number, b"")[: 10 * (int(part) - 1)] + body
        self._answer(200)

    def _logs(self, body: bytes) -> None:
        key = self.headers["Idempotency-Key"]
        self.fleet.keys.append(key)
        planned = self.fleet.plan.pop(0) if self.fleet.plan else 200
        if isinstance(planned, int) and planned != 200:
            return self._answer(planned)
        batch = decode_events(body)
        events = batch.events
        if batch.bad:  # today's events have no such field
            if not self.fleet.knows_details:
                return self._reject(batch.bad)
            self.fleet.details += len(batch.bad)
        indexes = [e.index for e in events if isinstance(e, FrameTaken)]
        if len(events) > self.fleet.most:
            return self._answer(413)
        if self.fleet.poison in indexes:
            return self._answer(422)
        self.fleet.got.setdefault(key, indexes)
        self.fleet.incidents += [e for e in events if isinstance(e, Incident)]
        if planned == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        return self._answer(200)

    def _reject(self, bad: tuple[str, ...]) -> None:
        """As the fleet server: what is not understood is named, the rest would be taken."""
        self.fleet.rejected += len(bad)
        reply = ExportLogsServiceResponse()
        reply.partial_success.rejected_log_records = len(bad)
        reply.partial_success.error_message = bad[0]
        self._send(200, reply.SerializeToString())

    def _upload(self, body: bytes) -> None:
        if done := re.fullmatch(r"/api/v1/uploads/(\w+)/complete", self.path):
            place = self.fleet.uploads[done[1]]
            whole = sha256_hex(self.fleet.blobs[done[1]]) == place["sha256"]
            self.fleet.stored.append((str(place["kind"]), str(place["frame"]), "whole" if whole else "damaged"))
            return self._answer(200 if whole else 422)
        wanted = json.loads(body)
        if any(p["sha256"] == wanted["sha256"] for p in self.fleet.uploads.values()):
            return self._answer(200, {"done": True})
        number = f"u{len(self.fleet.uploads)}"
        self.fleet.uploads[number] = wanted
        parts = [{"number": i + 1, "url": f"/parts/{number}/{i + 1}"} for i in range(-(-wanted["length"] // 10))]
        return self._answer(201, {"id": number, "part_bytes": 10, "parts": parts})

    def _answer(self, status: int, body: object = None) -> None:
        data = json.dumps(body if body is not None else {"title": "no", "detail": f"planned {status}"}).encode()
        self._send(status, b"" if status == 200 and body is None else data)

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if self.fleet.retry_after:
            self.send_header("Retry-After", self.fleet.retry_after)
        if self.fleet.features is not None:
            self.send_header(HEADER, self.fleet.features)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


class Login:
    """The device's side of signing in."""

    device_id = "dev-0123456789ab"

    def __init__(self, base_url: str) -> None:
        self.base_url, self.token, self.forgotten = base_url, "good", 0
        self.peer = Peer()

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def forget_token(self) -> None:
        self.forgotten += 1
        self.token = "good"


@dataclass
class Line:
    """A sender, its spool, and the server at the other end."""

    fleet: Fleet
    spool: Spool
    login: Login
    sender: Sender

    def step(self, times: int = 1) -> list[float]:
        return [self.sender.step() for _ in range(times)]

    def drain(self) -> None:
        for _ in range(200):
            self.sender.step()
            if self.spool.backlog()[0] == 0:
                return
        raise AssertionError(f"{self.spool.backlog()} {self.sender.problem}")


MakeLine = Callable[..., Line]
NEVER_S = 1e18


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeLine]:
    ends: list[Callable[[], None]] = []

    def new(pace: Pace | None = None, timeout_s: float = 10) -> Line:
        fleet = Fleet()
        handler = type("Bound", (Handler,), {"fleet": fleet})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        clock = SystemClock()
        home = Home.at(tmp_path)
        spool = Spool(home.spool_file, clock)
        login = Login(f"http://127.0.0.1:{server.server_port}")
        settings = load_project(tmp_path, environ={}, overrides=["agent.retry_s=1"]).settings
        sender = Sender(
            home, settings, spool, login, clock, http=SystemHttp(timeout_s=timeout_s), jitter=lambda: 0.5,
            pace=pace or Pace(gauges_s=NEVER_S, max_items=4),
        )  # fmt: skip

        def end() -> None:
            sender.close()
            server.shutdown()
            thread.join()
            server.server_close()
            spool.close()

        ends.append(end)
        return Line(fleet, spool, login, sender)

    yield new
    for end in ends:
        end()


def test_events_arrive_once_and_in_order(make: MakeLine) -> None:
    line = make()
    for i in range(10):
        line.spool.put(frame(i))
    line.drain()
    assert line.fleet.frames == list(range(10))
    assert len(line.fleet.keys) == len(set(line.fleet.keys)) == 3


def test_a_server_with_trouble_is_asked_again_with_growing_waits_under_the_same_key(make: MakeLine) -> None:
    line = make()
    line.spool.put(frame(0))
    line.fleet.plan = [500, 503, 429, 200]
    waits = line.step(4)
    assert waits[0] < waits[1] < waits[2]
    assert waits[3] < waits[0]
    assert len(set(line.fleet.keys)) == 1
    assert line.fleet.frames == [0]
    assert line.sender.problem == ""


def test_retry_after_is_honoured(make: MakeLine) -> None:
    line = make()
    line.spool.put(frame(0))
    line.fleet.plan, line.fleet.retry_after = [429], "77"
    assert line.step() == [77.0]


def test_an_answer_that_was_lost_counts_once(make: MakeLine) -> None:
    line = make()
    for i in range(3):
        line.spool.put(frame(i))
    line.fleet.plan = ["cut", "cut", 200]
    line.step()
    line.spool.put(frame(3))
    line.drain()
    assert line.fleet.frames == [0, 1, 2, 3]
    assert len(line.fleet.keys) == 4
    assert len(set(line.fleet.keys)) == 2


def test_a_batch_that_is_too_large_is_split(make: MakeLine) -> None:
    line = make()
    line.fleet.most = 1
    for i in range(6):
        line.spool.put(frame(i))
    line.drain()
    assert line.fleet.frames == list(range(6))
    assert line.spool.dead() == []


def test_poison_is_set_aside_and_told_and_the_rest_goes_on(make: MakeLine) -> None:
    line = make()
    line.fleet.poison = 2
    for i in range(6):
        line.spool.put(frame(i))
    line.drain()
    assert line.fleet.frames == [0, 1, 3, 4, 5]
    ((body, reason),) = line.spool.dead()
    assert '"index":2' in body
    assert "422" in reason
    assert [i.kind for i in line.fleet.incidents] == ["telemetry-refused"]


def test_a_key_that_the_server_knows_with_other_bytes_is_changed(make: MakeLine) -> None:
    line = make()
    line.spool.put(frame(0))
    line.fleet.plan = [409]
    line.drain()
    assert line.fleet.frames == [0]
    assert len(set(line.fleet.keys)) == 2
    assert line.spool.dead() == []


@pytest.mark.parametrize("status", [403, 404])
def test_a_server_that_does_not_want_this_instrument_now_loses_nothing(make: MakeLine, status: int) -> None:
    line = make()
    line.spool.put(frame(0))
    line.fleet.plan = [status] * 3
    line.step(3)
    assert line.spool.dead() == []
    line.drain()
    assert line.fleet.frames == [0]


def test_a_token_that_expired_is_renewed(make: MakeLine) -> None:
    line = make()
    line.login.token = "old"
    line.spool.put(frame(0))
    line.drain()
    assert line.login.forgotten == 1
    assert line.fleet.frames == [0]


def test_a_server_that_is_away_for_long_then_a_bounded_rate(make: MakeLine) -> None:
    line = make()
    address, line.login.base_url = line.login.base_url, "http://127.0.0.1:9"
    for i in range(40):
        line.spool.put(frame(i))
    waits = line.step(12)
    assert waits[-1] == 100.0
    line.login.base_url = address
    assert set(line.step(10)) == {0.1}
    assert line.fleet.frames == list(range(40))


def test_a_server_that_never_answers(make: MakeLine) -> None:
    line = make(timeout_s=0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    address, line.login.base_url = line.login.base_url, f"http://127.0.0.1:{listener.getsockname()[1]}"
    line.spool.put(frame(0))
    line.step()
    assert "127.0.0.1" in line.sender.problem
    listener.close()
    line.login.base_url = address
    line.drain()
    assert line.fleet.frames == [0]


def test_no_token_is_a_wait(make: MakeLine) -> None:
    line = make()

    def refuse() -> dict[str, str]:
        raise NetworkError("no token now")

    line.login.headers = refuse  # type: ignore[method-assign]
    line.spool.put(frame(0))
    assert line.step()[0] >= 1
    assert line.sender.problem == "no token now"
    assert line.spool.backlog()[0] == 1


def test_pictures_in_parts_after_the_events(make: MakeLine, tmp_path: Path) -> None:
    line = make()
    for i in range(2):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(bytes(range(25 + i)))
        line.spool.put_picture("thumbnail" if i else "overlay", "e1", f"f{i}", 1, path)
    same = tmp_path / "same.jpg"
    same.write_bytes(bytes(range(25)))
    line.spool.put_picture("overlay", "e1", "f9", 1, same)
    gone = tmp_path / "gone.jpg"
    line.spool.put_picture("overlay", "e1", "f8", 1, gone)
    line.spool.put(frame(0))
    line.step()
    assert line.fleet.frames == [0]
    line.drain()
    assert line.fleet.stored == [("overlay", "f9", "whole"), ("thumbnail", "f1", "whole")]
    assert not any(p.suffix == ".jpg" for p in tmp_path.iterdir())


def test_gauges_and_the_thread(make: MakeLine, tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    home.status_file.parent.mkdir(parents=True)
    health = {"queue_frames": 3, "segmenter_memory_mb": 120.5, "segmenter_restarts": 1}
    home.status_file.write_text(json.dumps({"health": health}), encoding="utf-8")
    line = make(pace=Pace(idle_s=0.01, gap_s=0.001, gauges_s=1e9))
    line.spool.put(frame(0))
    line.sender.start()
    wait_until(lambda: not line.spool.backlog()[0], "everything is sent")
    line.sender.close()
    assert line.fleet.frames == [0]
    assert {"cellfleet.queue.frames", "cellfleet.disk.free", "cellfleet.segmenter.memory"} <= set(line.fleet.gauges)
    assert "cellfleet.agent.memory" in line.fleet.gauges
