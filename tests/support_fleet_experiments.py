"""Experiments of a fleet that looks real: frames that grow, rows with timings, pictures of synthetic cells."""

from __future__ import annotations

import hashlib
import math
import random
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy.orm import Session

from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import Device, Experiment, FrameRow, Picture, Release, ResultRow
from support_fleet_releases import sha

WELLS = ("B2", "B3", "C2", "C3", "D4", "E5")


@cache
def pictures(n: int = 4, seed: int = 7) -> list[tuple[bytes, bytes]]:
    """Overlay and thumbnail (PNG) of ``n`` frames of a synthetic time-lapse."""
    import cv2

    from cellfleet.data.synthetic import SceneParams, simulate
    from cellfleet.runtime.results.overlay import overlay_png

    out = []
    for frame in simulate(SceneParams(height_px=384, width_px=512), frames=n, seed=seed):
        plane = frame.pixels if frame.pixels.ndim == 2 else frame.pixels[0]
        grey = cv2.normalize(plane, None, 0, 255, cv2.NORM_MINMAX).astype("uint8")  # type: ignore[call-overload]
        small = cv2.imencode(".png", cv2.resize(grey, (256, 192), interpolation=cv2.INTER_AREA))[1].tobytes()
        out.append((overlay_png(plane, frame.labels), small))
    return out


def add_experiment(
    db: Session,
    device: Device,
    releases: dict[str, Release],
    now: datetime,
    frames: int,
    chance: random.Random,
    last: int,
) -> str:
    name, started = f"plate-{240 + last}", now - timedelta(minutes=10 * frames)
    release = next(r for r in releases.values() if r.sha256 == device.active_sha256)
    run = sha("run", release.sha256)
    message = {
        "event": "experiment",
        "experiment": name,
        "plate": "A172 / staurosporine",
        "plate_format": 96,
        "started_at": started.isoformat(),
        "ended_at": None,
        "pin": 1,
        "pinned_sha256": release.sha256,
        "release_id": release.id,
        "run_digest": run,
        "reason": "",
    }
    db.add(
        Experiment(
            device_id=device.id,
            name=name,
            plate="A172 / staurosporine",
            plate_format=96,
            started_at=started,
            pin=1,
            pinned_sha256=release.sha256,
            release_id=release.id,
            run_digest=run,
            history=[message],
        )
    )
    for i in range(frames):
        for w, well in enumerate(WELLS):
            _frame(
                db,
                device,
                name,
                i * len(WELLS) + w,
                well,
                started + timedelta(minutes=10 * i, seconds=20 * w),
                release,
                run,
                chance,
                w,
            )
    return name


def _frame(
    db: Session,
    device: Device,
    experiment: str,
    index: int,
    well: str,
    at: datetime,
    release: Release,
    run: str,
    chance: random.Random,
    w: int,
) -> None:
    frame, step = f"{well}_t{index // len(WELLS):04d}", index // len(WELLS)
    grown = 12 + 4 * w + 60 / (1 + math.exp(-(step - 18 - 2 * w) / 6)) + chance.gauss(0, 0.6)
    timings = {
        "wait": 40 + 8 * chance.random(),
        "prepare": 12 + chance.random(),
        "network": 210 + 25 * chance.random(),
        "resample": 6.0,
        "objects": 48 + 6 * chance.random(),
        "measure": 22.0,
        "watch": 9.0,
    }
    flags = (
        [{"name": "out-of-focus", "reason": "sharpness 0.11, usual here 0.42 to 0.60"}]
        if (step, w) in ((11, 1), (12, 1))
        else []
    )
    db.add(
        FrameRow(
            device_id=device.id,
            experiment=experiment,
            name=frame,
            index=index,
            well=well,
            field=1,
            time_s=600.0 * step + 20 * w,
            taken_at=at,
            sha256=sha("raw", device.id, frame),
            bytes=524_288,
        )
    )
    db.add(
        ResultRow(
            device_id=device.id,
            experiment=experiment,
            frame=frame,
            pin=1,
            run_digest=run,
            bundle_sha256=release.sha256,
            release_id=release.id,
            variant="openvino/fp32",
            engine_version="2026.4.1",
            count=int(grown * 3.1),
            confluence_percent=min(100.0, max(0.0, grown)),
            per_mm2=grown * 8.4,
            total_ms=sum(timings.values()) - timings["wait"],
            details={
                "features": {"sharpness": 0.5},
                "flags": flags,
                "timings_ms": {**timings, "total": sum(timings.values())},
            },
            mask_sha256=sha("mask", device.id, frame),
            segmented_at=at + timedelta(seconds=1),
        )
    )


def add_pictures(
    db: Session, context: Context, device: Device, experiment: str, drawn: list[tuple[bytes, bytes]], now: datetime
) -> None:
    rows = (
        db.query(FrameRow)
        .filter_by(device_id=device.id, experiment=experiment)
        .order_by(FrameRow.index.desc())
        .limit(18)
    )
    for i, row in enumerate(rows if drawn else ()):
        overlay, thumbnail = drawn[i % len(drawn)]
        for kind, data in (("overlay", overlay), ("thumbnail", thumbnail)):
            digest = hashlib.sha256(data).hexdigest()
            if not context.blobs.has(digest):
                context.blobs.put([data], sha256=digest, length=len(data))
            db.add(
                Picture(
                    device_id=device.id,
                    experiment=experiment,
                    frame=row.name,
                    kind=kind,
                    pin=1,
                    sha256=digest,
                    media_type="image/png",
                    stored_at=now,
                )
            )
