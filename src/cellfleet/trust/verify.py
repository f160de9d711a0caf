"""What an instrument may install: both repositories must name it.

The steps, and the error of each:

1. The first root of each repository is the pinned one (UnknownRoot).
2. Each later root is signed by the threshold of its own keys and of the previous root's keys (BadSignature, RolledBack).
3. The newest root has not expired (Expired); nothing was signed in the future of this machine's clock (ClockWrong).
4. The timestamp is signed, not older than the last one, and not expired (BadSignature, RolledBack, Expired).
5. The snapshot is the exact file that the timestamp names, signed and not expired; nothing in it is older than before or missing
   (MixedUp, BadSignature, Expired, RolledBack).
6. The targets and the delegated roles are the exact files that the snapshot names, signed and not expired (as 5).
7. The director's metadata is for this instrument (WrongDevice).
8. Both repositories name the release, and the director names it for this instrument (NotNamed, WrongDevice).
9. The repositories and the desired state agree on length, SHA-256, kind, name, version and release counter (Disagree).
10. The counter is not below the installed one, or there is a valid allowance to go back (Downgrade).
11. No file is longer than allowed (EndlessData), and each can be parsed (BadMetadata); ``download`` checks the artifact itself.

An offline folder has one file of the director's offline role instead of steps 4 to 6 of the director and step 4 of the image
repository (``cellfleet.trust.offline_folder``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cellfleet.canonical import sha256_hex
from cellfleet.errors import StorageError
from cellfleet.ports import Clock, write_atomic
from cellfleet.trust.layout import (
    DELEGATED,
    MAX_ROOT_ROTATIONS,
    OFFLINE,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    AllowanceFacts,
    DirectorFacts,
    ReleaseFacts,
    allowance_path,
    facts_of,
    file_name,
    max_bytes,
)
from cellfleet.trust.metadata import check_life, check_signatures, load
from cellfleet.trust.metadata_builder import offline_delegator
from cellfleet.trust.metadata_fetch import Fetch, folder_fetch
from cellfleet.trust.offline_folder import OFFLINE_FILE, named_snapshot
from cellfleet.trust.online_signing import DEVICE_ID
from cellfleet.trust.publish import Named, bytes_of, named_target
from cellfleet.trust.refusals import (
    Disagree,
    Downgrade,
    EndlessData,
    Missing,
    NotNamed,
    RolledBack,
    UnknownRoot,
    Untrusted,
    WrongDevice,
)
from cellfleet.trust.trusted_metadata import TrustedMetadata
from cellfleet.trust.tuf_types import MetaFile, Targets
from cellfleet.wire.enrol import TrustAnchors
from cellfleet.wire.states import ArtifactRef

_log = logging.getLogger(__name__)
_IMAGE, _DIRECTOR = "image", "director"
_TOO_FEW = "the director and the publisher must both name a release; ask the operator of the fleet server"


class VerifiedTarget(Named):
    """An artifact that both repositories name for this instrument.

    Attributes:
        deployment_id, generation: of the desired state, as the director says; a folder has no deployment.
        allowance: reason of the allowance that permits a lower counter; empty: none was needed.
    """

    deployment_id: int | None
    generation: int
    allowance: str = ""


class Verifier:
    """Verifies both repositories for one instrument and stores trusted metadata in its folder.

    Args:
        folder: ``HOME/trust``; ``image/`` and ``director/`` are made in it.
        anchors: digests of the first roots.
        image_fetch, director_fetch: read metadata files.
        clock: the clock of this machine.
        device_id: of this instrument.
        offline: the fetchers read an exported folder.
        write: writes a file atomically.
    """

    def __init__(
        self,
        folder: Path,
        anchors: TrustAnchors,
        image_fetch: Fetch,
        director_fetch: Fetch,
        clock: Clock,
        *,
        device_id: str,
        offline: bool = False,
        write: Callable[[Path, bytes], None] = write_atomic,
    ) -> None:
        self._anchors, self._clock, self._device_id, self._offline = anchors, clock, device_id, offline
        self._image_store = _Store(folder / _IMAGE, image_fetch, write)
        self._director_store = _Store(folder / _DIRECTOR, director_fetch, write)
        self._image: TrustedMetadata | None = None
        self._wanted: Targets | None = None

    def refresh(self) -> None:
        """Steps 1 to 7: fetch and verify new metadata of both repositories.

        Raises:
            Untrusted: of the kinds that are listed at the step.
            NetworkError: a repository cannot be reached.
            StorageError: the disk fails.
        """
        now = self._clock.now()
        self._image = self._wanted = None
        order = self._fetch_order() if self._offline else b""
        director = self._roots(_DIRECTOR, self._director_store, self._anchors.director_root, now)
        named: MetaFile | None = None
        if self._offline:
            wanted = self._offline_targets(director, order, now)
            named = named_snapshot(wanted, f"{_DIRECTOR} repository, {OFFLINE}")
        else:
            _to_targets(director, self._director_store, ())
            wanted = director.targets()
            self._check_device(wanted)
        image = self._roots(_IMAGE, self._image_store, self._anchors.image_root, now)
        _to_targets(image, self._image_store, DELEGATED, named)
        self._image, self._wanted = image, wanted

    def check(self, release: ArtifactRef, installed: Mapping[tuple[str, str], int]) -> VerifiedTarget:
        """Steps 8 to 10: check that this instrument may install a release. Call ``refresh`` first.

        Args:
            release: of the desired state.
            installed: release counters of the installed artifacts, by kind and name.

        Returns:
            What both repositories say about it.

        Raises:
            Untrusted: it must not be installed; see the steps.
        """
        found = self._both(release.target_path)
        # 9. the desired state says the same
        if release.artifact != found.artifact:
            raise Disagree(f"{release.target_path}: the desired state and the repositories describe it differently")
        # 10. not downward
        have = installed.get((found.kind, found.name), 0)
        if found.counter >= have:
            return found
        return found.model_copy(update={"allowance": self._allowance(found, have).reason})

    def offered(self) -> tuple[VerifiedTarget, ...]:
        """All releases that both repositories name for this instrument; counters are not compared. Call ``refresh`` first.

        Raises:
            Untrusted: the repositories disagree.
        """
        assert self._wanted is not None, "refresh comes first"
        return tuple(self._both(path) for path in sorted(self._wanted.targets))

    def _roots(self, name: str, store: _Store, anchor: str, now: datetime) -> TrustedMetadata:
        # 1. the pinned root
        first = store.kept(file_name(ROOT, 1))
        if first is None or sha256_hex(first) != anchor:
            first = store.fetch(file_name(ROOT, 1), ROOT)
            if first is None:
                raise Missing(f"{name} repository: the first root is missing", hint="check the address or the folder")
            if sha256_hex(first) != anchor:
                raise UnknownRoot(
                    f"{name} repository: its first root is not the one that this instrument trusts",
                    hint="it belongs to another publisher; use the right server, or provision the instrument for that publisher",
                )
            chain = TrustedMetadata(name, first, now)
            store.keep(file_name(ROOT, 1), first)
        else:
            chain = TrustedMetadata(name, first, now)
        # 2. one root after the other
        for _ in range(MAX_ROOT_ROTATIONS):
            if not _next_root(chain, store):
                break
        # 3. the newest is alive
        chain.check_root()
        return chain

    def _fetch_order(self) -> bytes:
        data = self._director_store.fetch(OFFLINE_FILE, TARGETS)
        if data is None:
            raise WrongDevice(
                f"the folder holds no metadata for the instrument {self._device_id}",
                hint="export it with `cellfleet trust export --device` and this device id",
            )
        return data

    def _offline_targets(self, director: TrustedMetadata, data: bytes, now: datetime) -> Targets:
        store, where = self._director_store, f"{_DIRECTOR} repository, {OFFLINE}"
        delegator = offline_delegator(director.root)
        loaded = load(Targets, data, where)
        check_signatures(loaded, delegator, OFFLINE)
        old = store.kept(OFFLINE_FILE)
        if old is not None:
            try:
                before = load(Targets, old, where)
                check_signatures(before, delegator, OFFLINE)
            except Untrusted as e:
                _log.warning("ignore metadata that was trusted before: %s", e)
            else:
                if loaded.signed.version < before.signed.version:
                    raise RolledBack(
                        f"{where}: it is older than a folder that was used before", hint="use the newest folder"
                    )
        check_life(loaded, now)
        self._check_device(loaded.signed)
        store.keep(OFFLINE_FILE, data)
        return loaded.signed

    def _check_device(self, wanted: Targets) -> None:
        # 7. for this instrument
        whom = wanted.unrecognized_fields.get(DEVICE_ID)
        if whom != self._device_id:
            raise WrongDevice(f"director repository: it is for {whom}; this instrument is {self._device_id}")

    def _both(self, path: str) -> VerifiedTarget:
        assert self._image is not None, "refresh comes first"
        assert self._wanted is not None, "refresh comes first"
        # 8. both name it
        wanted, published = self._wanted.targets.get(path), self._image.find(path)
        if wanted is None:
            raise NotNamed(f"director repository: it does not name {path} for this instrument", hint=_TOO_FEW)
        if published is None:
            raise NotNamed(f"image repository: it does not name {path}", hint=_TOO_FEW)
        facts = facts_of(ReleaseFacts, published, f"{_IMAGE} repository")
        order = facts_of(DirectorFacts, wanted, f"{_DIRECTOR} repository")
        if order.device_id != self._device_id:
            raise WrongDevice(f"{path}: it is for {order.device_id}; this instrument is {self._device_id}")
        # 9. alike
        if bytes_of(wanted) != bytes_of(published):
            raise Disagree(f"{path}: the repositories name different bytes")
        if order.release_counter != facts.release_counter:
            raise Disagree(f"{path}: the repositories name different release counters")
        more = {"deployment_id": order.deployment_id, "generation": order.generation}
        return named_target(VerifiedTarget, published, facts, f"{_IMAGE} repository", **more)

    def _allowance(self, found: VerifiedTarget, have: int) -> AllowanceFacts:
        assert self._image is not None, "refresh comes first"
        text = f"{found.name} {found.version} has the release counter {found.counter}, below the installed {have}"
        hint = "to go back on purpose, sign an allowance with `cellfleet trust allow`"
        for whom in (self._device_id, None):
            path = allowance_path(found.kind, found.name, have, found.counter, whom)
            target = self._image.find(path)
            if target is None:
                continue
            facts = facts_of(AllowanceFacts, target, f"{_IMAGE} repository")
            if (facts.from_counter, facts.to_counter) != (have, found.counter) or facts.device_id != whom:
                raise Downgrade(f"{text}; the allowance {path} does not match its name", hint=hint)
            if facts.expires <= self._clock.now():
                raise Downgrade(
                    f"{text}; the allowance to go back expired at {facts.expires:%Y-%m-%d %H:%M}", hint=hint
                )
            return facts
        raise Downgrade(f"{text}, and no allowance permits it", hint=hint)


@dataclass(frozen=True)
class _Store:
    """Metadata files of one repository: the stored ones, and those that can be fetched."""

    folder: Path
    source: Fetch
    write: Callable[[Path, bytes], None]

    def kept(self, name: str) -> bytes | None:
        """A file that was trusted earlier; None: there is none, or it cannot be read."""
        try:
            return folder_fetch(self.folder)(name, max_bytes(""))
        except (StorageError, EndlessData) as e:
            _log.warning("ignore metadata that was trusted before: %s", e)
            return None

    def keep(self, name: str, data: bytes) -> None:
        """Store a file unless the same bytes are stored already."""
        if self.kept(name) != data:
            self.write(self.folder / name, data)

    def fetch(self, name: str, role: str, length: int | None = None) -> bytes | None:
        """Fetch a file of the repository; None: there is none."""
        return self.source(name, min(length or max_bytes(role), max_bytes(role)))


def _next_root(chain: TrustedMetadata, store: _Store) -> bool:
    name = file_name(ROOT, chain.root_version + 1)
    old = store.kept(name)
    if old is not None:
        try:
            chain.add_root(old)
        except Untrusted as e:
            _log.warning("ignore metadata that was trusted before: %s", e)
        else:
            return True
    data = store.fetch(name, ROOT)
    if data is None:
        return False
    chain.add_root(data)
    store.keep(name, data)
    return True


def _to_targets(
    chain: TrustedMetadata, store: _Store, delegated: tuple[str, ...], named: MetaFile | None = None
) -> None:
    """Steps 4 to 6; ``named`` replaces the timestamp in an offline folder."""
    # 4. timestamp
    known = f"{TIMESTAMP}.json"
    _known(store, known, lambda data: chain.add_timestamp(data, known=True))
    meta = named
    if meta is None:
        stamp = store.fetch(known, TIMESTAMP)
        if stamp is None:
            raise Missing(f"{chain.name} repository: {known} is missing", hint="check the address or the folder")
        fresh = chain.add_timestamp(stamp)
        if fresh:
            store.keep(known, stamp)
        meta = chain.snapshot_meta()
    # 5. snapshot
    _known(store, f"{SNAPSHOT}.json", lambda data: chain.add_snapshot(data, known=True))
    data = _named_file(store, SNAPSHOT, meta)
    chain.add_snapshot(data, named=meta)
    store.keep(f"{SNAPSHOT}.json", data)
    # 6. targets
    for role in (TARGETS, *delegated):
        if role != TARGETS and role not in chain.delegations():
            continue
        data = _named_file(store, role, chain.targets_meta(role))
        chain.add_targets(role, data)
        store.keep(f"{role}.json", data)


def _known(store: _Store, name: str, add: Callable[[bytes], object]) -> None:
    data = store.kept(name)
    if data is None:
        return
    try:
        add(data)
    except Untrusted as e:
        _log.warning("ignore metadata that was trusted before: %s", e)


def _named_file(store: _Store, role: str, meta: MetaFile) -> bytes:
    """The file that other metadata names: the stored one if it has that hash, else a fetched one."""
    kept = store.kept(f"{role}.json")
    if kept is not None and meta.hashes and sha256_hex(kept) == meta.hashes.get("sha256"):
        return kept
    name = file_name(role, meta.version)
    data = store.fetch(name, role, meta.length)
    if data is None:
        raise Missing(f"{name} is missing, but other metadata names it", hint="the repository is incomplete")
    return data
