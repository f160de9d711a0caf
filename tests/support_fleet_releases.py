"""Releases of a fleet that looks real: decision records that are signed, lineage behind them, slots that run them."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from cellfleet.canonical import canonical_bytes, digest_of
from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import Artifact, LineageRecord, Release
from cellfleet.lineage import SigningKey, sign
from cellfleet.ports import write_atomic


def sha(*parts: object) -> str:
    """A digest that depends on the parts only."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def decision(name: str, version: str, bundle: str, ap50: float, passed: bool, now: datetime) -> dict[str, Any]:
    """The payload of a decision record as ``cellfleet evaluate`` makes it."""

    def numbers(value: float, frames: int) -> dict[str, Any]:
        return {
            "frames": frames,
            "true": frames * 84,
            "predicted": frames * 82,
            "ap50": value,
            "map": value * 0.71,
            "precision": value * 1.04,
            "recall": value * 0.98,
            "dice": 0.94 * value + 0.04,
            "count_error": 0.031 / value,
            "confluence_error": 0.9 / value,
            "ap": {"0.50": value, "0.75": value * 0.7},
        }

    return {
        "format_version": 1,
        "kind": "decision",
        "bundle": bundle,
        "model": name,
        "version": version,
        "variant": "onnxruntime/fp32",
        "variants": {
            "onnxruntime/fp32": {"sha256": sha(bundle, "fp32"), "ap50": ap50, "map": ap50 * 0.71, "dice": ap50 * 0.98},
            "onnxruntime/int8": {
                "sha256": sha(bundle, "int8"),
                "ap50": ap50 - 0.004,
                "map": ap50 * 0.7,
                "dice": ap50 * 0.97,
            },
        },
        "engine": {"name": "onnxruntime", "version": "1.23.2"},
        "run_digest": sha("run", bundle),
        "data_set": sha("data", 3),
        "split": "test",
        "policy": sha("policy"),
        "thresholds": {"ap50": 0.6, "dice": 0.8},
        "numbers": numbers(ap50, 48),
        "strata": {
            "HeLa": numbers(ap50 + 0.02, 20),
            "A172": numbers(ap50 - 0.03, 18),
            "SK-OV-3": numbers(ap50 - 0.01, 10),
        },
        "used_in_training": [],
        "champion": None,
        "checks": [
            {"name": "min_ap50", "value": ap50, "threshold": 0.6, "passed": ap50 >= 0.6},
            {"name": "min_dice", "value": 0.94 * ap50 + 0.04, "threshold": 0.5, "passed": passed},
        ],
        "verdict": "passed" if passed else "failed",
        "reasons": [] if passed else ["AP@0.5 is 0.112, below the threshold 0.600", "stratum A172: AP@0.5 is 0.082"],
        "approver": "Dr Lin Mei-hua",
        "decided": (now - timedelta(days=12)).isoformat(timespec="seconds"),
        "lineage": {"data_set": sha("data", 3)},
        "cellfleet_version": "0.1.0",
    }


def make_releases(db: Session, context: Context, now: datetime) -> dict[str, Release]:
    key, made = SigningKey(Ed25519PrivateKey.generate()), {}
    write_atomic(context.path(context.settings.decision_keys[0]), key.public_pem)
    lineage = _lineage(db, now)
    for counter, (version, ap50, passed, days) in enumerate(
        (("1.0.0", 0.781, True, 60), ("1.1.0", 0.823, True, 14), ("1.2.0", 0.112, False, 2)), start=1
    ):
        digest = sha("bundle", version)
        payload = {**decision("neural-cells", version, digest, ap50, passed, now), "lineage": lineage}
        envelope = sign(payload, key)
        record = hashlib.sha256(canonical_bytes(envelope)).hexdigest()
        db.add(LineageRecord(kind="decision", digest=record, content=envelope, added_at=now - timedelta(days=days)))
        db.add(
            Artifact(sha256=digest, length=8_700_000, uploaded_by="person:ada", uploaded_at=now - timedelta(days=days))
        )
        made[version] = Release(
            kind="model",
            name="neural-cells",
            version=version,
            counter=counter,
            sha256=digest,
            length=8_700_000,
            target_path=f"models/neural-cells/{version}/{digest[:12]}.bundle.zip",
            decision_digest=record,
            verdict=payload["verdict"],
            approver="Dr Lin Mei-hua",
            published_by="person:ada",
            override={}
            if passed
            else {
                "reason": "Customer in Leiden needs debris-heavy plates today; agreed by phone with Dr Lin.",
                "by": "grace",
                "at": (now - timedelta(days=days)).isoformat(),
            },
            card={
                "name": "neural-cells",
                "version": version,
                "description": "Phase contrast, 10x, adherent cells",
                "numbers": payload["numbers"],
            },
            notes="Finer outlines at high confluence.",
            published_at=now - timedelta(days=days),
        )
        db.add(made[version])
    db.flush()
    return made


def _lineage(db: Session, now: datetime) -> dict[str, Any]:
    """Records of training and data, as they come with a release; the bundle's lineage that names them."""
    entries = [{"uri": f"images/{i}.tif", "split": ("train", "validation", "test")[i % 5 // 2]} for i in range(600)]
    data_set = _record(db, now, "data-set", {"format_version": 1, "name": "livecell-mix", "entries": entries})
    common = {
        "data_set": data_set,
        "project_commit": "4f1c2a9d0be37715",
        "project_dirty": False,
        "environment": sha("environment"),
        "cellfleet_version": "0.1.0",
    }
    training = {"format_version": 1, "seed": 7, "epochs": 40, "best_epoch": 33, "validation_ap50": 0.8312, **common}
    return {**common, "training_run": _record(db, now, "training", training)}


def _record(db: Session, now: datetime, kind: str, content: dict[str, Any]) -> str:
    digest = digest_of(content)
    db.add(LineageRecord(kind=kind, digest=digest, content=content, added_at=now))
    return digest


def slot_row(release: Release, since: datetime) -> dict[str, Any]:
    return {
        "release_id": release.id,
        "name": release.name,
        "version": release.version,
        "counter": release.counter,
        "sha256": release.sha256,
        "variant": "openvino/fp32",
        "run_digest": sha("run", release.sha256),
        "since": since.isoformat(),
    }


def facts_of() -> dict[str, Any]:
    return {
        "cellfleet_version": "0.1.0",
        "platform": "Linux 6.1 x86_64",
        "cpu": "AMD Ryzen 7 7700",
        "cores": 8,
        "memory_mb": 32768,
        "gpus": [],
        "engines": {"onnxruntime": "1.23.2", "openvino": "2026.4.1"},
    }
