"""An instrument's own spool and sender against the whole application: what its disk holds is what the server counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellfleet.config import load_project
from cellfleet.device.scheduling.scheduler import FrameScheduler
from cellfleet.device.server.spool import Spool
from cellfleet.device.server.telemetry import Pace, Sender
from cellfleet.errors import NetworkError
from cellfleet.ports import FixedClock, SystemClock
from cellfleet.ports.http import Response, Stream
from cellfleet.wire.features import Peer
from cellfleet.wire.reason import text_reason
from support_fleet import TestClient, TestDevice, World
from support_scheduler import Instrument


class Wire:
    """The network between them: requests go into the application; some answers are lost on the way back."""

    def __init__(self, http: TestClient, lose: int = 0) -> None:
        self._http, self._lose, self.requests = http, lose, 0

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        del timeout_s
        self.requests += 1
        answer = self._http.request(method, url, headers=dict(headers or {}), content=body)
        if self._lose and self.requests % self._lose == 0:
            raise NetworkError("the answer was lost on the way")
        return Response(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)

    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> contextlib.AbstractContextManager[Stream]:
        raise NotImplementedError


class Login:
    """A token that is valid."""

    base_url = "http://fleet.test"

    def __init__(self, device: TestDevice) -> None:
        assert device.http is not None
        self.device_id, self.peer = device.device_id, Peer()
        self._headers = {"Authorization": device.http.headers["authorization"]}

    def headers(self) -> dict[str, str]:
        return self._headers

    def forget_token(self) -> None:
        raise AssertionError("the server does not take a token that is valid")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Instrument]:
    made = Instrument(tmp_path / "home", device__thumbnail_every="2")
    yield made
    made.close()


def drain(spool: Spool, sender: Sender) -> None:
    for _ in range(500):
        sender.step()
        if spool.backlog()[0] == 0:
            return
    raise AssertionError(f"{spool.backlog()} {sender.problem}")


@pytest.mark.parametrize("lose", [0, 3])
def test_what_lies_on_the_disk_is_what_the_server_counts(
    world: World, clock: FixedClock, box: Instrument, lose: int, client: TestClient
) -> None:
    clock.at = datetime.now(UTC)
    device = world.device("XYZ-001")
    viewer = world.as_role("viewer")
    spool = Spool(box.home.spool_file, SystemClock())
    wire = Wire(client, lose)
    sender = Sender(
        box.home, load_project(box.home.root, environ={}).settings, spool, Login(device), SystemClock(),
        http=wire, pace=Pace(max_items=5, gauges_s=1e18), jitter=lambda: 0.5,
    )  # fmt: skip
    good, bad = box.slot("1.0.0"), box.slot("2.0.0", level=99)
    work = FrameScheduler(box.home, box.settings, spool, SystemClock())
    box.works.append(work)
    work.switch(bad)
    facts = box.begin()
    names = [box.take(facts, i) for i in range(4)]
    unreadable = box.take(facts, 4, b"no image")
    box.until(work, lambda: len(box.outcomes) == 5)
    drain(spool, sender)
    work.switch(good)
    work.repin(bad, good, facts.started_at, text_reason("it segments nothing"))
    box.until(work, lambda: len(box.outcomes) == 10)
    box.end(facts)
    box.until(work, lambda: not work.pinned())
    drain(spool, sender)
    base = f"/api/v1/devices/{device.device_id}"
    (experiment,) = viewer.get(f"{base}/experiments").json()["items"]
    expected = {"taken": 5, "unreadable": 1, "segmented": 4, "rows": 4, "superseded": 4}
    assert experiment["counts"] == expected
    assert (experiment["pin"], experiment["pinned_sha256"]) == (2, good.sha256)
    assert experiment["ended_at"] is not None
    counted = work.counters()
    assert (counted.taken, counted.segmented, counted.failed) == (5, 4, 1)
    rows = viewer.get(f"{base}/results").json()["items"]
    assert [r["frame"] for r in rows] == names
    assert {r["count"] for r in rows} == {6}
    assert {r["well"] for r in rows} == {"A1"}
    disk = {r.frame: r.mask_sha256 for r in box.rows(facts, pin=2)}
    assert {r["frame"]: r["mask_sha256"] for r in rows} == disk
    for kind in ("thumbnail", "overlay"):
        answer = viewer.get(f"{base}/pictures/{facts.experiment}/{names[0]}/{kind}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        assert max(picture.shape) <= 480
    assert viewer.get(f"{base}/pictures/{facts.experiment}/{names[1]}/overlay").status_code == 404
    assert unreadable not in disk
    assert spool.dead() == []
    assert list((box.home.spool_file.parent / "pictures").iterdir()) == []
    spool.close()
