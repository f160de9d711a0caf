"""What the server signs: the timestamp of the image repository, and the director's metadata of each device.

Pure except for the keys: bytes and facts in, bytes out. The server stores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer

from cellfleet.trust.keys import BOOK_FILE, Secrets, read_book, signer_of
from cellfleet.trust.layout import (
    DIRECTOR,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    DirectorFacts,
    file_name,
    newest,
)
from cellfleet.trust.metadata import load, meta_of, sign
from cellfleet.trust.metadata_builder import target, timestamp_of
from cellfleet.trust.metadata_fetch import read_folder
from cellfleet.trust.refusals import KeyTrouble
from cellfleet.trust.tuf_types import Root, Snapshot, Targets, Timestamp
from cellfleet.wire.states import ArtifactRef

DEVICE_ID = "device_id"
"""Our own field of the director's targets: whom they are for, also while they name nothing."""


@dataclass(frozen=True)
class OnlineKeys:
    """The keys on the server."""

    timestamp: Signer
    director: Signer

    @staticmethod
    def load(folder: Path, secrets: Secrets) -> OnlineKeys:
        """Open the online keys of a trust folder.

        Args:
            folder: the trust folder.
            secrets: gives passphrases.

        Returns:
            The keys.

        Raises:
            KeyTrouble: a key is missing or locked, or the newest root in the folder does not know it.
        """
        book = read_book(folder)
        signers: dict[str, Signer] = {}
        for name, repository in ((TIMESTAMP, "image"), (DIRECTOR, "director")):
            if name not in book.keys:
                raise KeyTrouble(f"{folder / BOOK_FILE} names no key {name}", hint="restore it from a backup")
            entry = book.keys[name]
            found = newest(read_folder(folder / repository), ROOT)
            if found is None:
                raise KeyTrouble(
                    f"{folder / repository} holds no root", hint="copy the whole trust folder without `keys/`"
                )
            root = load(Root, found[1], f"{repository} repository, root").signed
            if entry.keyid not in root.roles[TIMESTAMP].keyids:
                raise KeyTrouble(
                    f"the {repository} repository's root {found[0]} does not know the key {name} of {BOOK_FILE}",
                    hint="the key was rotated; copy the newest trust folder without `keys/` to the server",
                )
            signers[name] = signer_of(folder, name, entry, secrets)
        return OnlineKeys(signers[TIMESTAMP], signers[DIRECTOR])


def next_version(previous: int | None, now: datetime) -> int:
    """A version above the previous one, and at least the seconds since 1970.

    A server that lost its database so continues above every version that devices have seen.

    Args:
        previous: the last version; None: there is none.
        now: the current time.

    Returns:
        The next version.
    """
    return max((previous or 0) + 1, int(now.timestamp()))


def renew_timestamp(signer: Signer, snapshot: bytes, previous: bytes | None, now: datetime, life_s: float) -> bytes:
    """Make ``timestamp.json`` for a snapshot.

    Args:
        signer: the timestamp key.
        snapshot: bytes of the snapshot.
        previous: bytes of the last timestamp; None: there is none.
        now: the time of signing.
        life_s: how long it is valid, in seconds.

    Returns:
        The bytes of the file.

    Raises:
        BadMetadata: the snapshot or the previous timestamp is damaged.
        KeyTrouble: the key fails.
    """
    before = None if previous is None else load(Timestamp, previous, "previous timestamp").signed.version
    return sign(timestamp_of(snapshot, next_version(before, now)), [signer], now, timedelta(seconds=life_s))


def needs_renewal(timestamp: bytes, now: datetime, life_s: float) -> bool:
    """Whether half of the life of a ``timestamp.json`` is over.

    Args:
        timestamp: bytes of the file.
        now: the current time.
        life_s: how long a timestamp is valid, in seconds.

    Returns:
        Whether it must be renewed.

    Raises:
        BadMetadata: the file is damaged.
    """
    expires = load(Timestamp, timestamp, "timestamp").signed.expires
    return (expires - now.astimezone(UTC)).total_seconds() < life_s / 2


class Director:
    """Makes the director's metadata of one device.

    Args:
        signer: the director's key.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def files(
        self,
        device_id: str,
        wanted: ArtifactRef | None,
        *,
        deployment_id: int | None,
        generation: int,
        version: int,
        now: datetime,
        life_s: float,
    ) -> dict[str, bytes]:
        """Make targets, snapshot and timestamp.

        Args:
            device_id: the device.
            wanted: the release that it is to install; None: none.
            deployment_id, generation: of the desired state.
            version: of all three files; above every earlier version for this device (``next_version``).
            now: the time of signing.
            life_s: how long they are valid, in seconds.

        Returns:
            Content by file name.

        Raises:
            KeyTrouble: the key fails.
        """
        life = timedelta(seconds=life_s)
        targets = director_targets(device_id, [wanted] if wanted else [], deployment_id, generation, version)
        targets_bytes = sign(targets, [self._signer], now, life)
        meta = {f"{TARGETS}.json": meta_of(version, targets_bytes)}
        snapshot = sign(Snapshot(version=version, meta=meta), [self._signer], now, life)
        return {
            file_name(TARGETS, version): targets_bytes,
            file_name(SNAPSHOT, version): snapshot,
            file_name(TIMESTAMP, version): sign(timestamp_of(snapshot, version), [self._signer], now, life),
        }


def director_targets(
    device_id: str, releases: Sequence[ArtifactRef], deployment_id: int | None, generation: int, version: int
) -> Targets:
    """Make the targets of one device, unsigned.

    Args:
        device_id: the device.
        releases: what it may install.
        deployment_id, generation: of the desired state.
        version: of the targets.

    Returns:
        The targets.
    """
    named = {
        r.target_path: target(
            r.target_path,
            r.length,
            r.sha256,
            DirectorFacts(
                release_counter=r.counter, device_id=device_id, deployment_id=deployment_id, generation=generation
            ),
        )
        for r in releases
    }
    return Targets(version=version, targets=named, unrecognized_fields={DEVICE_ID: device_id})
