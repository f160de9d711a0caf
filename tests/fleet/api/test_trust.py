"""Signed metadata: public, or a device's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cellfleet.fleet.context import Context
from support_fleet import TestClient, World
from support_rollout import Publisher, instruments, start

As = Callable[[str], TestClient]


def word(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "").rsplit(":", 1)[-1]


def test_devices_read_only_their_own_metadata_and_artifacts(
    context: Context, publisher: Publisher, as_role: As, world: World, client: TestClient
) -> None:
    operator, pilot = as_role("operator"), instruments(world, "pilot", 2)
    release = publisher.publish(operator, "1.0.0")
    start(operator, release, "pilot", [{"count": 1}, {"percent": 100}])
    a, b = pilot[0].device, pilot[1].device
    assert a.http is not None
    assert b.http is not None
    wanted = pilot[0].ask(context).release
    assert wanted is not None
    assert a.http.get(f"/api/v1/artifacts/{wanted.sha256}").status_code == 200
    assert b.http.get(f"/api/v1/artifacts/{wanted.sha256}").status_code == 404, "it was not offered"
    own = f"/api/v1/trust/director/{a.device_id}"
    assert a.http.get(f"{own}/timestamp.json").json()["signed"]["_type"] == "timestamp"
    assert a.http.get(f"{own}/1.root.json").content == client.get("/api/v1/trust/director/1.root.json").content
    assert a.http.get(f"{own}/2.root.json").status_code == 404
    assert b.http.get(f"{own}/timestamp.json").status_code == 404
    assert client.get(f"{own}/timestamp.json").status_code == 401
    assert client.get("/api/v1/trust/image/2.models.json").status_code == 200
    for bad in ("..%2F..%2Fdirector%2F1.root.json", "secret", "1.root.json%00"):
        assert client.get(f"/api/v1/trust/image/{bad}").status_code == 404
    anchors = client.get("/api/v1/trust/anchors").json()
    assert set(anchors) == {"image_root", "director_root"}


def test_without_trust_roots(client: TestClient) -> None:
    assert word(client.get("/api/v1/trust/anchors")) == (503, "no-trust")
