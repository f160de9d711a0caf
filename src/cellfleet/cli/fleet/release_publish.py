"""The steps of ``cellfleet release publish``: find the records, sign, upload, send the release request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellfleet.api_client import upload
from cellfleet.cli.fleet.client import FleetClient
from cellfleet.errors import LineageError
from cellfleet.lineage import RecordStore
from cellfleet.lineage.signing import unverified_payload
from cellfleet.ports import ProgressFn
from cellfleet.ports.disk import storage_error
from cellfleet.ports.http import SystemHttp
from cellfleet.wire.features import ARTIFACTS
from cellfleet.wire.states import ArtifactRef
from cellfleet.wire.uploads import ArtifactRequest

if TYPE_CHECKING:
    from cellfleet.bundle import Bundle
    from cellfleet.trust.folder import Publication, TrustFolder
    from cellfleet.trust.keys import Secrets

_MAX_RECORD_BYTES = 4_000_000
_PART_TIMEOUT_S = 300.0


@dataclass
class Evidence:
    """Records sent with a bundle: decision record, records by kind, and the names of missing records."""

    decision: dict[str, Any] | None = None
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def evidence_of(bundle: Bundle, store: RecordStore, decision: dict[str, Any] | None) -> Evidence:
    """Find the records of a bundle.

    Args:
        bundle: the opened bundle.
        store: records of the project.
        decision: the given decision record; None: the latest record of this bundle in the store.

    Returns:
        The records, and the names of those that are missing or too long.
    """
    found = Evidence(decision if decision is not None else latest_decision(store, bundle.sha256))
    if found.decision is None:
        found.missing.append("decision record")
    wanted = (("training", bundle.lineage.training_run), ("data-set", bundle.lineage.data_set))
    for kind, digest in wanted:
        try:
            found.records[kind] = [store.get(kind, digest)]
        except LineageError:
            found.missing.append(f"{kind} record {digest[:12]}")
    files = {v.sha256 for v in bundle.variants}
    optimized = [
        record
        for _, record in store.find("optimization", training=bundle.lineage.training_run)
        if files <= set(record.get("files", {}).values())
    ]
    if optimized:
        found.records["optimization"] = [max(optimized, key=lambda r: str(r.get("time", "")))]
    for kind, records in list(found.records.items()):
        if len(json.dumps(records)) > _MAX_RECORD_BYTES:
            found.missing.append(f"{kind} record: too long to send")
            del found.records[kind]
    return found


def latest_decision(store: RecordStore, bundle_sha256: str) -> dict[str, Any] | None:
    """Find the latest decision record of a bundle; the server checks its signature.

    Args:
        store: the records.
        bundle_sha256: SHA-256 of the bundle, hexadecimal.

    Returns:
        The envelope; None if there is none.
    """
    found = []
    for _, envelope in store.all("decision"):
        try:
            payload = unverified_payload(envelope)
        except LineageError:
            continue
        if payload.get("bundle") == bundle_sha256:
            found.append((str(payload.get("decided") or ""), envelope))
    return max(found, key=lambda x: x[0])[1] if found else None


def card_of(bundle: Bundle, decision: Mapping[str, Any] | None) -> dict[str, Any]:
    """Collect the facts of a bundle that pages show: its description, and the numbers of the decision.

    Args:
        bundle: the bundle to publish.
        decision: envelope of the decision record; None if there is none.

    Returns:
        Plain JSON data.
    """
    manifest = bundle.manifest.as_json()
    card = {
        k: manifest[k] for k in ("format_version", "name", "version", "requires", "lineage", "variants", "tolerances")
    }
    card["golden_frames"] = len(manifest["golden"])
    payload = unverified_payload(decision) if decision is not None else {}
    if isinstance(payload.get("numbers"), dict):
        card["numbers"] = payload["numbers"]
    return card


def catch_up(folder: TrustFolder, client: FleetClient, now: datetime) -> list[str]:
    """Fetch metadata that the folder lacks: the server accepted a release, but its response did not arrive.

    Args:
        folder: the trust folder.
        client: the server.
        now: current time, UTC.

    Returns:
        Names of the fetched files.

    Raises:
        TrustError: the server's metadata does not follow the folder's.
        NetworkError: the server cannot be reached.
    """
    from cellfleet.trust import http_fetch
    from cellfleet.trust.publish import newer_files

    fetch = http_fetch(SystemHttp(), f"{client.base_url}/api/v1/trust/image")
    files = newer_files(fetch, folder.image_files())
    return folder.adopt(files, now) if files else []


def metadata_of(folder: TrustFolder, publication: Publication) -> dict[str, str]:
    """Collect the metadata with which the server verifies a publication.

    Args:
        folder: the trust folder.
        publication: the new files.

    Returns:
        File name -> content: all roots, the newest file of each role, the new files.
    """
    newest: dict[str, tuple[int, bytes]] = {}
    files: dict[str, bytes] = {}
    for name, content in folder.image_files().items():
        version, _, role = name.partition(".")
        if not version.isdecimal():
            continue
        if role == "root.json":
            files[name] = content
        elif int(version) > newest.get(role, (0, b""))[0]:
            newest[role] = (int(version), content)
    files |= {f"{version}.{role}": content for role, (version, content) in newest.items()}
    return {name: content.decode() for name, content in (files | publication.files).items()}


def upload_artifact(client: FleetClient, path: Path, sha256: str, length: int, progress: ProgressFn) -> int:
    """Upload an artifact in parts; parts that have arrived are not sent again.

    Args:
        client: the server.
        path: the artifact.
        sha256: its SHA-256, hexadecimal.
        length: its length, bytes.
        progress: called with parts sent, parts in total, megabytes as text.

    Returns:
        Bytes sent.

    Raises:
        NetworkError, ServerRefuses, WireError: as in ``upload``.
        StorageError: the file cannot be read.
    """
    announcement = ArtifactRequest(sha256=sha256, length=length)
    try:
        with path.open("rb") as file:
            return upload(
                client.api, "/api/v1/artifacts", announcement, file, part_timeout_s=_PART_TIMEOUT_S, progress=progress
            )
    except OSError as e:
        raise storage_error("read", path, e) from e


@dataclass
class Order:
    """A release to publish."""

    bundle: Bundle
    folder: TrustFolder
    secrets: Secrets
    evidence: Evidence
    override: str = ""
    notes: str = ""


def publish(client: FleetClient, order: Order, progress: ProgressFn) -> dict[str, Any]:
    """Sign, upload and publish. The trust folder keeps the signed files when the server has accepted them.

    Args:
        client: the server.
        order: bundle, keys and evidence.
        progress: progress of the upload.

    Returns:
        The server's response, with ``bytes_sent`` and ``missing``.

    Raises:
        TrustError, NetworkError, ServerRefuses, StorageError.
    """
    bundle, folder = order.bundle, order.folder
    now = datetime.now(UTC)
    catch_up(folder, client, now)
    publication = _sign(order, now)
    sent = upload_artifact(client, bundle.path, bundle.sha256, publication.length, progress)
    body = {
        "release": _artifact(client, order, publication),
        "metadata": metadata_of(folder, publication),
        "decision": order.evidence.decision,
        "records": order.evidence.records,
        "card": card_of(bundle, order.evidence.decision),
        "override": {"reason": order.override} if order.override else None,
        "notes": order.notes,
    }
    answer: dict[str, Any] = client.post("/api/v1/releases", body)
    folder.keep(publication)
    return {**answer, "bytes_sent": sent, "missing": order.evidence.missing}


def _artifact(client: FleetClient, order: Order, publication: Publication) -> dict[str, Any]:
    spec = order.bundle.spec
    artifact = ArtifactRef(
        name=spec.name,
        version=spec.version,
        counter=publication.counter,
        target_path=publication.target_path,
        sha256=publication.sha256,
        length=publication.length,
    ).to_data()
    if ARTIFACTS in client.api.peer.features:
        return artifact
    return artifact | {"release_id": 1}  # an older server requires a number here and ignores it


def _sign(order: Order, now: datetime) -> Publication:
    from cellfleet.trust.folder import ArtifactBytes

    bundle = order.bundle
    return order.folder.publish(
        ArtifactBytes(bundle.sha256, bundle.path.stat().st_size),
        kind="model",
        name=bundle.spec.name,
        version=bundle.spec.version,
        secrets=order.secrets,
        now=now,
    )
