"""A release and what it was made of, and a device whose frames are segmented by it: for tests of lineage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cellfleet.canonical import digest_of
from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import telemetry
from cellfleet.fleet.people.access import Caller
from cellfleet.lineage import sign
from cellfleet.wire.telemetry_events import Event, ExperimentStarted, FrameSegmented, FrameTaken
from cellfleet.wire.telemetry_otlp import encode_events
from support_fleet import TestClient, TestDevice, World
from support_rollout import Publisher, decision, digest

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
DATA_SET = {"entries": [{"split": "train"}, {"split": "train"}, {"split": "test"}]}
TRAINING = {"seed": 3, "epochs": 9, "data_set": digest_of(DATA_SET)}
LINEAGE = {
    "data_set": digest_of(DATA_SET), "training_run": digest_of(TRAINING), "project_commit": "c0ffee", "project_dirty": False,
    "environment": digest("environment"), "cellfleet_version": "0.2.0",
}  # fmt: skip
RUN = digest("run")
As = Callable[[str], TestClient]


@dataclass
class Story:
    """The server, its caller, the device and the SHA-256 of its bundle."""

    context: Context
    http: TestClient
    device: TestDevice
    bundle: str

    def segment(self, frame: str = "A1_0001", bundle: str = "", pin: int = 1, **more: Any) -> None:
        """The device reports that it took and segmented a frame."""
        events: list[Event] = [
            ExperimentStarted(experiment="p1", plate="A172", started_at=NOW, pin=pin, reason="" if pin == 1 else "too slow"),
            FrameTaken(
                experiment="p1", frame=frame, index=1, well="A1", time_s=60, taken_at=NOW, sha256=digest("raw"), bytes=9
            ),
            FrameSegmented(
                experiment="p1", frame=frame, pin=pin, run_digest=RUN, bundle_sha256=bundle or self.bundle,
                variant="onnxruntime/fp32", engine_version="1.23.2", count=42, confluence_percent=41.5,
                mask_sha256=digest("mask", pin), segmented_at=NOW, **more,
            ),
        ]  # fmt: skip
        caller = Caller(self.device.device_id, self.device.name)
        telemetry.take_logs(self.context, caller, digest(frame, bundle, pin), encode_events({}, events, NOW))

    def ask(self, path: str = "XYZ-001/p1/A1_0001") -> dict[str, dict[str, Any]]:
        """The links of the chain, by what they are."""
        answer = self.http.get(f"/api/v1/lineage/{path}")
        assert answer.status_code == 200, answer.text
        self.complete = answer.json()["complete"]
        links = answer.json()["links"]
        self.order = [link["what"] for link in links]
        return {link["what"]: link for link in links}


def new_story(context: Context, publisher: Publisher, as_role: As, world: World) -> Story:
    """Publish the release and accept the device."""
    body = publisher.request("1.0.0", records={"training": [TRAINING], "data-set": [DATA_SET]})
    sha256 = body["release"]["sha256"]
    body["decision"] = sign(
        decision(sha256, data_set=digest_of(DATA_SET), lineage=LINEAGE, decided="2026-03-01"), publisher.key
    )
    assert as_role("operator").post("/api/v1/releases", json=body).status_code == 201
    return Story(context, as_role("viewer"), world.device("XYZ-001"), sha256)
