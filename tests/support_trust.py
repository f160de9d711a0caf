"""A publisher, a server and instruments in memory: the production code on all three sides, files instead of a network.

``Site`` has every key, so that a test can also do what somebody with stolen keys would do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import CryptoSigner, Signer

from cellfleet.canonical import sha256_hex
from cellfleet.errors import NetworkError
from cellfleet.ports import FixedClock, write_atomic
from cellfleet.trust import Director, OnlineKeys, TrustFolder, Verifier, check_published, renew_timestamp
from cellfleet.trust.folder import ArtifactBytes
from cellfleet.trust.layout import LIFE, file_name, newest
from cellfleet.trust.metadata import load, meta_of, sign
from cellfleet.trust.metadata_builder import timestamp_of
from cellfleet.trust.metadata_fetch import Fetch
from cellfleet.trust.online_signing import next_version
from cellfleet.trust.publish import Named, check_director_roots, named
from cellfleet.trust.tuf_types import Root, Snapshot, Targets, Timestamp
from cellfleet.wire.enrol import TrustAnchors
from cellfleet.wire.states import ArtifactRef

START = datetime(2026, 3, 1, 8, tzinfo=UTC)
DEVICE, OTHER = "dev-0123456789ab", "dev-ba9876543210"
PASSPHRASE = "correct horse battery"
LIFE_S = 86400.0
NOTHING: dict[tuple[str, str], int] = {}
"""What is installed on a new instrument."""

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


def secret(_name: str) -> str:
    return PASSPHRASE


def make_folder(path: Path, template: Path | None = None) -> TrustFolder:
    """A new trust folder; of a template, a copy of it, which is quicker."""
    if template is None:
        return TrustFolder.init(path, secret, START)
    shutil.copytree(template, path)
    return TrustFolder.load(path)


def files_fetch(files: Mapping[str, bytes], log: list[str] | None = None) -> Fetch:
    """Brings files of a dictionary; the network of these tests."""

    def fetch(name: str, _most_bytes: int) -> bytes | None:
        if log is not None:
            log.append(name)
        return files.get(name)

    return fetch


def no_network(name: str, _most_bytes: int) -> bytes | None:
    raise NetworkError(f"{name}: nobody answers")


class Site:
    """One publisher, one server, some instruments.

    Attributes:
        image: files of the image repository, as the server serves them.
        director: device id -> its files.
    """

    def __init__(self, root: Path, template: Path | None = None) -> None:
        self.root, self.clock = root, FixedClock(START)
        self.folder = make_folder(root / "trust", template)
        self.image: dict[str, bytes] = {}
        self.director_roots: dict[str, bytes] = {}
        self.director: dict[str, dict[str, bytes]] = {}
        self.contents: dict[str, bytes] = {}
        self.serve()

    @property
    def now(self) -> datetime:
        return self.clock.at

    def pass_time(self, **ago: float) -> None:
        self.clock.at += timedelta(**ago)

    # --- the publisher

    def publish(self, version: str = "1.0.0", content: bytes = b"", name: str = "cells") -> ArtifactRef:
        """Sign, bring to the server, keep."""
        data = content or f"{name} {version}".encode()
        made = self.folder.publish(
            ArtifactBytes(sha256_hex(data), len(data)),
            kind="model",
            name=name,
            version=version,
            secrets=secret,
            now=self.now,
        )
        self.take(made.files)
        self.folder.keep(made)
        self.contents[made.sha256] = data
        return self.ref(made.target_path)

    def ref(self, path: str) -> ArtifactRef:
        return self.named[path].artifact

    @property
    def named(self) -> dict[str, Named]:
        return named(self.image)

    # --- the server

    def serve(self) -> None:
        """Take what the folder has, as a server does when it starts."""
        self.online = OnlineKeys.load(self.folder.path, secret)
        roots = self.folder.director_files()
        self.director_roots |= check_director_roots(self.director_roots, roots, self.now)
        self.take(self.folder.image_files())

    def take(self, files: Mapping[str, bytes]) -> None:
        accepted = check_published(self.image, {n: d for n, d in files.items() if n != "timestamp.json"}, self.now)
        self.image |= accepted.files
        self.stamp(accepted.snapshot)

    def stamp(self, snapshot: bytes | None = None) -> None:
        """Sign the timestamp anew."""
        data = snapshot or self.newest("snapshot")
        before = self.image.get("timestamp.json")
        self.image["timestamp.json"] = renew_timestamp(self.online.timestamp, data, before, self.now, LIFE_S)

    def order(self, wanted: ArtifactRef | None, device: str = DEVICE, **changed: Any) -> dict[str, bytes]:
        """What the director says to a device now; ``changed`` fields are those of somebody who has its key."""
        before = self.director.get(device, {})
        known = newest(before, "snapshot")
        release = None if wanted is None else wanted.model_copy(update=changed)
        made = Director(self.online.director).files(
            device,
            release,
            deployment_id=7,
            generation=3,
            version=next_version(known[0] if known else None, self.now),
            now=self.now,
            life_s=LIFE_S,
        )
        self.director[device] = {**before, **made}
        return made

    def director_files(self, device: str = DEVICE) -> dict[str, bytes]:
        return {**self.director_roots, **self.director.get(device, {})}

    def newest(self, role: str) -> bytes:
        found = newest(self.image, role)
        assert found is not None
        return found[1]

    # --- an instrument

    @property
    def anchors(self) -> TrustAnchors:
        return self.folder.anchors()

    def verifier(
        self,
        device: str = DEVICE,
        *,
        home: str = "home",
        image: Fetch | None = None,
        director: Fetch | None = None,
        write: Callable[[Path, bytes], None] = write_atomic,
        anchors: TrustAnchors | None = None,
    ) -> Verifier:
        return Verifier(
            self.root / home / device / "trust",
            anchors or self.anchors,
            image or files_fetch(self.image),
            director or files_fetch(self.director_files(device)),
            self.clock,
            device_id=device,
            write=write,
        )

    def refreshed(self, device: str = DEVICE) -> Verifier:
        verifier = self.verifier(device)
        verifier.refresh()
        return verifier

    # --- somebody with stolen keys

    def key(self, name: str) -> Signer:
        return self.folder.signer(name, secret)

    def forge_image(self, role: str, change: Callable[[Targets], object], signer: Signer | None = None) -> None:
        """Change targets of a role and sign everything up to the timestamp, with right keys but for ``signer``."""
        found = newest(self.image, role)
        assert found is not None
        targets = load(Targets, found[1], role).signed
        targets.version = found[0] + 1
        change(targets)
        data = sign(targets, [signer or self.key(role)], self.now, LIFE[role])
        self.image[file_name(role, targets.version)] = data
        self.forge_snapshot(lambda s: s.meta.update({f"{role}.json": meta_of(targets.version, data)}))

    def forge_director(self, change: Callable[[Targets], object], device: str = DEVICE) -> None:
        """Change what the director says to a device, and sign it with the right key."""
        files = self.director[device]
        found = newest(files, "targets")
        assert found is not None
        targets = load(Targets, found[1], "targets").signed
        change(targets)
        version, signer = found[0] + 1, self.online.director
        targets.version = version
        data = sign(targets, [signer], self.now, timedelta(seconds=LIFE_S))
        snapshot = Snapshot(version=version, meta={"targets.json": meta_of(version, data)})
        snapshot_data = sign(snapshot, [signer], self.now, timedelta(seconds=LIFE_S))
        stamp = sign(timestamp_of(snapshot_data, version), [signer], self.now, timedelta(seconds=LIFE_S))
        files |= {file_name("targets", version): data, file_name("snapshot", version): snapshot_data}
        files["timestamp.json"] = stamp

    def forge_snapshot(self, change: Callable[[Snapshot], object], signer: Signer | None = None) -> None:
        """Change the snapshot, sign it and a timestamp for it."""
        snapshot = load(Snapshot, self.newest("snapshot"), "snapshot").signed
        snapshot.version += 1
        change(snapshot)
        data = sign(snapshot, [signer or self.key("snapshot")], self.now, LIFE["snapshot"])
        self.image[file_name("snapshot", snapshot.version)] = data
        self.stamp(data)

    def forge_timestamp(self, change: Callable[[Timestamp], object], signers: Iterable[Signer] | None = None) -> None:
        stamp = load(Timestamp, self.image["timestamp.json"], "timestamp").signed
        change(stamp)
        keys = [self.online.timestamp] if signers is None else list(signers)
        self.image["timestamp.json"] = sign(stamp, keys, self.now, timedelta(seconds=LIFE_S))


def check(site: Site, release: ArtifactRef, installed: int = 0, device: str = DEVICE) -> str:
    """Ask an instrument that has a counter installed; gives the allowance that it used, empty: none was needed."""
    have = {("model", release.name): installed} if installed else NOTHING
    found = site.refreshed(device).check(release, have)
    return found.allowance


def stranger() -> Signer:
    """A key that nobody trusts."""
    return CryptoSigner.generate_ed25519()
