"""What the fleet server's hot paths cost, each beside the plain way of doing it; on SQLite, without sockets.

Times are of this process's processor, so that a busy machine does not change them.

Run it with ``python benchmarks/bench_fleet.py [--devices 500] [--rows 20000]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cellfleet.canonical import sha256_hex
from cellfleet.config.fleet import FleetSection
from cellfleet.config.project import Project, Settings
from cellfleet.fleet import trust_repository
from cellfleet.fleet.context import Context, open_context
from cellfleet.fleet.ingest import results, telemetry
from cellfleet.fleet.people.access import Caller, Person
from cellfleet.fleet.rollout import deployment_lists, deployments, desired_state
from cellfleet.fleet.rollout.reconcile import reconcile
from cellfleet.fleet.store.models import Artifact, Device, DeviceGroup, Release, ResultRow
from cellfleet.trust import TrustFolder
from cellfleet.wire.rollout import DeploymentRequest, Phase
from cellfleet.wire.telemetry_events import Event, ExperimentStarted, FrameSegmented, FrameTaken
from cellfleet.wire.telemetry_otlp import encode_events

NOW = datetime.now(UTC)
BY = Person(1, "bench", "admin", "token", "0" * 64)
BATCH = 250
PASSPHRASE = "of the benchmark"


def median_ms(work: Callable[[], Any], repeat: int = 30) -> float:
    """Median time of a call in milliseconds, after one that is not counted."""
    work()
    times = []
    for _ in range(repeat):
        began = time.process_time()
        work()
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times)


def once_ms(work: Callable[[], Any]) -> float:
    """Time of one call in milliseconds."""
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began)


def told(what: str, ours: float, plain: float, unit: str = "ms") -> None:
    """One line: ours, the plain way, and how many times quicker ours is."""
    print(f"{what:<74} {ours:10.3f} {unit}   plain {plain:10.3f} {unit}   {plain / ours:6.1f} x")


def fill(context: Context, count: int) -> list[str]:
    """A release, and accepted devices in one group."""
    ids = [f"dev-{i:012x}" for i in range(count)]
    digest = sha256_hex(b"bundle")
    with context.sessions() as db:
        group = DeviceGroup(name="all", created_at=NOW)
        db.add_all([group, Artifact(sha256=digest, length=6, uploaded_by="bench", uploaded_at=NOW)])
        db.flush()
        report = {"health": {"problems": []}, "filler": "x" * 2000}
        db.add_all(
            Device(
                id=i, name=f"XYZ-{n:04}", public_key="k", key_sha256=sha256_hex(i.encode()), state="accepted",
                group_id=group.id, created_at=NOW, last_seen_at=NOW, reported=report,
            )
            for n, i in enumerate(ids)
        )  # fmt: skip
        db.add(
            Release(
                kind="model", name="cells", version="1.0.0", counter=1, target_path="models/cells/1.0.0/x.bundle.zip",
                sha256=digest, length=6, published_by="bench", published_at=NOW,
            )
        )  # fmt: skip
    return ids


def bench_polls(context: Context, ids: list[str]) -> None:
    """Asking for the desired state: nothing new, all of it, and signing at every question."""
    etag = desired_state.ask(context, ids[0]).etag
    same = median_ms(lambda: desired_state.ask(context, ids[0], etag), 200)
    full = median_ms(lambda: desired_state.ask(context, ids[0]), 200)

    def signing() -> None:
        with context.sessions() as db:
            device = db.get_one(Device, ids[1])
            trust_repository.sign(db, context, [trust_repository.wanted_of(device)])

    told("poll, nothing new (ETag, 304); plain: the whole desired state", same, full)
    told("poll, the whole desired state; plain: signed anew for every poll", full, median_ms(signing, 50))


def bench_deployment(context: Context, count: int) -> None:
    """A deployment to all devices, looked at again while nothing happened, and listed."""
    request = DeploymentRequest(release_id=1, group="all", phases=(Phase(percent=100),))
    made: list[int] = []

    def start() -> None:
        with context.sessions() as db:
            made.append(deployments.create(db, context, BY, request).id)

    print(f"deployment started: {count} desired states signed in {once_ms(start):.0f} ms")

    def heavy() -> None:
        with context.sessions() as db:
            for member in deployment_lists.members(db, made[0], limit=1000):
                db.get_one(Device, member.member.device_id)

    look = median_ms(lambda: reconcile(context, made[0]), 10)
    told(f"looking at a deployment of {count}; plain: a query for every device", look, median_ms(heavy, 3))


def events(frames: range) -> list[Event]:
    """Frames and their rows."""
    out: list[Event] = [ExperimentStarted(experiment=f"p{frames.start // 5000}", started_at=NOW)]
    for n in frames:
        at, name = NOW - timedelta(days=1) + timedelta(seconds=n / 10), f"A1_{n:06}"
        out.append(
            FrameTaken(
                experiment=f"p{n // 5000}",
                frame=name,
                index=n,
                well="A1",
                time_s=n,
                taken_at=at,
                sha256="a" * 64,
                bytes=1,
            )
        )
        out.append(
            FrameSegmented(
                experiment=f"p{n // 5000}",
                frame=name,
                pin=1,
                run_digest="b" * 64,
                bundle_sha256="c" * 64,
                count=n % 90,
                variant="onnxruntime/fp32",
                confluence_percent=40,
                features={f"f{i}": 0.5 for i in range(20)},
                timings_ms={"total": 250.0},
                mask_sha256="d" * 64,
                segmented_at=at,
            )
        )
    return out


def bench_intake(context: Context, device_id: str, rows: int) -> None:
    """Rows of telemetry in batches, and row by row in a transaction each."""
    caller = Caller(device_id, "XYZ")

    def body(frames: range) -> bytes:
        return encode_events({}, events(frames), NOW)

    def send(bodies: list[bytes], key: str) -> None:
        for n, one in enumerate(bodies):
            telemetry.take_logs(context, caller, f"{key}{n}", one)

    whole, single = [body(range(BATCH))], [body(range(n, n + 1)) for n in range(BATCH, BATCH + 50)]
    batch_ms, single_ms = once_ms(lambda: send(whole, "first")) / BATCH, once_ms(lambda: send(single, "single")) / 50
    told(f"a frame and its row, in batches of {BATCH}; plain: a batch for each", batch_ms, single_ms)
    bodies = [body(range(n, min(n + BATCH, rows))) for n in range(300, rows, BATCH)]
    took = once_ms(lambda: send(bodies, "many"))
    print(f"{rows} frames and rows taken: {1000 * rows / took:.0f} a second")
    again, other = once_ms(lambda: send(bodies[:1], "many")), once_ms(lambda: send(bodies[:1], "other"))
    told("the same batch again, known by its key; plain: known by its rows", again, other)


def bench_reading(context: Context, device_id: str) -> None:
    """Lists over all those rows."""
    with context.reading() as db:
        page = median_ms(lambda: results.rows(db, device_id, experiment="p3", limit=100), 10)
        everything = once_ms(lambda: len(db.query(ResultRow).filter_by(device_id=device_id).all()))
        told("a hundred rows of an experiment; plain: all rows of the device", page, everything)
        counted = median_ms(lambda: results.experiments(db, device_id), 3)
        names = [e.name for e, _ in results.experiments(db, device_id)]

        def each() -> None:
            for name in names:
                db.expunge_all()
                results.rows(db, device_id, experiment=name, limit=1_000_000)

        told("counts of all experiments in three queries; plain: reading their rows", counted, once_ms(each))


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--rows", type=int, default=20_000)
    asked = parser.parse_args()
    os.environ["CELLFLEET_ONLINE_PASSPHRASE"] = PASSPHRASE
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        TrustFolder.init(root / "trust", lambda _key: PASSPHRASE, NOW)
        project = Project(root=root, settings=Settings(fleet=FleetSection()), found=True)
        context = open_context(project)
        try:
            trust_repository.take_folder(context)
            ids = fill(context, asked.devices)
            bench_deployment(context, asked.devices)
            bench_polls(context, ids)
            bench_intake(context, ids[0], asked.rows)
            bench_reading(context, ids[0])
        finally:
            context.close()


if __name__ == "__main__":
    main()
