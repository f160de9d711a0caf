"""The folder for instruments without a network: metadata that is bound to them, signed by the offline role, with a longer life.

``director/<device id>/offline.json`` replaces the director's online metadata and the timestamp of the image repository. It
names what the instrument is to install, and the exact snapshot that belongs to it. No online key is needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cellfleet.canonical import sha256_file
from cellfleet.ports import atomic_path, write_atomic
from cellfleet.ports.disk import storage_error
from cellfleet.trust.folder import TrustFolder
from cellfleet.trust.keys import Secrets
from cellfleet.trust.layout import ALLOWANCES, OFFLINE, SNAPSHOT, TIMESTAMP, newest
from cellfleet.trust.metadata import meta_of, sign
from cellfleet.trust.online_signing import director_targets
from cellfleet.trust.publish import Named, check_published, named
from cellfleet.trust.refusals import BadMetadata, NotNamed, WrongBytes
from cellfleet.trust.tuf_types import MetaFile, Targets
from cellfleet.wire.base import parse_data
from cellfleet.wire.enrol import ClaimReply

IMAGE_SNAPSHOT = "image_snapshot"
"""Our own field of ``offline.json``: the snapshot of the image repository that belongs to it."""
OFFLINE_FILE = f"{OFFLINE}.json"
ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class OfflineFolder:
    """What was exported.

    Attributes:
        folder: where.
        devices: ids of the instruments.
        releases: what they may install.
        expires: until when.
    """

    folder: Path
    devices: tuple[str, ...]
    releases: tuple[Named, ...]
    expires: datetime


def export(
    folder: TrustFolder,
    out: Path,
    *,
    devices: Sequence[str],
    artifacts: Sequence[Path],
    life: timedelta,
    secrets: Secrets,
    now: datetime,
) -> OfflineFolder:
    """Write an offline folder, or renew an existing one.

    Args:
        folder: the publisher's trust folder.
        out: the offline folder.
        devices: ids of the instruments.
        artifacts: files of published releases that they may install.
        life: how long the signed metadata is valid.
        secrets: gives the passphrase of the offline role's key.
        now: the time of signing.

    Returns:
        What was exported.

    Raises:
        NotNamed: an artifact is not published.
        KeyTrouble: the key of the offline role is missing or locked.
        Expired: the image repository must be renewed first.
        WireError: an invalid device id.
        StorageError: the disk fails.
    """
    for device in devices:
        parse_data(ClaimReply, {"device_id": device, "state": "accepted"})
    images = folder.image_files()
    check_published(images, {}, now)  # what an instrument would refuse is not carried to it
    releases = [_release(images, path) for path in artifacts]
    newest_snapshot = newest(images, SNAPSHOT)
    assert newest_snapshot is not None
    signer = folder.signer(ALLOWANCES, secrets)
    for name, data in images.items():
        if name != f"{TIMESTAMP}.json":
            write_atomic(out / "image" / name, data)
    for path, release in zip(artifacts, releases, strict=True):
        _carry(path, out / ARTIFACTS / release.sha256, release)
    for device in devices:
        for name, data in folder.director_files().items():
            write_atomic(out / "director" / device / name, data)
        version = int(now.timestamp())
        targets = director_targets(device, releases, None, version, version)
        targets.unrecognized_fields[IMAGE_SNAPSHOT] = meta_of(*newest_snapshot).to_dict()
        write_atomic(out / "director" / device / OFFLINE_FILE, sign(targets, [signer], now, life))
    return OfflineFolder(out, tuple(devices), tuple(releases), now + life)


def named_snapshot(targets: Targets, where: str) -> MetaFile:
    """The snapshot of the image repository that an ``offline.json`` names.

    Args:
        targets: the content of ``offline.json``.
        where: repository and role, for messages.

    Returns:
        Version, length and hashes of the snapshot.

    Raises:
        BadMetadata: it names none.
    """
    try:
        return MetaFile.from_dict(dict(targets.unrecognized_fields[IMAGE_SNAPSHOT]))
    except (KeyError, ValueError, TypeError, AttributeError) as e:
        raise BadMetadata(f"{where}: it names no snapshot of the image repository") from e


def _release(images: Mapping[str, bytes], path: Path) -> Named:
    try:
        sha256 = sha256_file(path)
    except OSError as e:
        raise storage_error("read", path, e) from e
    for release in named(images).values():
        if release.sha256 == sha256:
            return release
    raise NotNamed(
        f"{path} is not published in this trust folder (SHA-256 {sha256[:12]})",
        hint="publish it first with `cellfleet release publish`, or without a server: `trust export --publish`",
    )


def _carry(source: Path, target: Path, release: Named) -> None:
    try:
        if target.exists() and sha256_file(target) == release.sha256:
            return
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
            if sha256_file(part) != release.sha256:
                raise WrongBytes(f"{source} changed while it was copied", hint="run the same command again")
    except OSError as e:
        raise storage_error("write", target, e) from e
