"""Publish without a server: the same gate applies, and the trust folder keeps the signed files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from cellfleet.config import Project
from cellfleet.errors import GateFailed, LineageError
from cellfleet.lineage import RecordStore
from cellfleet.lineage.signing import load_public_key
from cellfleet.trust import TrustFolder
from cellfleet.trust.folder import ArtifactBytes
from cellfleet.trust.keys import Secrets
from cellfleet.trust.publish import named

_PASSED = "passed"


def publish_here(
    folder: TrustFolder, bundle: Path, project: Project, secrets: Secrets, now: datetime, decision: Path | None
) -> str:
    """Sign a bundle into the image repository of a trust folder; do nothing if it is already published.

    Args:
        folder: the trust folder.
        bundle: the bundle's file.
        project: holds the records and the trusted decision keys.
        secrets: passphrases of the keys.
        now: current time, UTC.
        decision: its decision record; None: the latest record of this bundle in the project.

    Returns:
        ``NAME VERSION``.

    Raises:
        LineageError: there is no trusted decision record.
        GateFailed: its verdict is not ``passed``. Only a server overrides a gate: that needs an approver and an audit.
        BundleError, TrustError, StorageError: the bundle, the keys or the disk fail.
    """
    from cellfleet.bundle import open_bundle

    opened = open_bundle(bundle)
    label = f"{opened.spec.name} {opened.spec.version}"
    if any(r.sha256 == opened.sha256 for r in named(folder.image_files()).values()):
        return label
    _check_gate(project, opened.sha256, label, decision)
    made = folder.publish(
        ArtifactBytes(opened.sha256, bundle.stat().st_size),
        kind="model",
        name=opened.spec.name,
        version=opened.spec.version,
        secrets=secrets,
        now=now,
    )
    folder.keep(made)
    return label


def _check_gate(project: Project, sha256: str, label: str, decision: Path | None) -> None:
    from cellfleet.cli.fleet.release_publish import latest_decision
    from cellfleet.evaluate.decision import read_json, verify_decision

    store = RecordStore(project.path(project.settings.lineage.records))
    envelope: dict[str, Any] | None = read_json(decision) if decision else latest_decision(store, sha256)
    if envelope is None:
        raise LineageError(
            f"{label} has no decision record", hint="evaluate the bundle with `cellfleet evaluate`, or use --decision"
        )
    keys = [load_public_key(project.path(name)) for name in project.settings.fleet.decision_keys]
    payload = verify_decision(envelope, keys, bundle=sha256)
    if payload.get("verdict") != _PASSED:
        reasons = "; ".join(str(r) for r in payload.get("reasons") or ()) or "no reasons given"
        raise GateFailed(f"{label} did not pass its gate: {reasons}", hint="only a fleet server can override a gate")
